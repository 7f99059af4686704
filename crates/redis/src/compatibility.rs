//! Requirements on a Redis server: version, mode and eviction policy.

use crate::args::{Args, Role};
use crate::unusable::Unusable;

/// Oldest supported version. Valkey starts at 7.2 and reports it here as well.
const MIN_VERSION: (u32, u32) = (7, 0);

/// Requirements of a service on its server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) role: Role,
    /// True if a server that may evict keys is accepted for state.
    allow_eviction: bool,
}

impl Needs {
    pub(crate) fn new(args: &Args, role: Role) -> Self {
        Self { role, allow_eviction: args.allow_eviction }
    }

    /// Checks the output of INFO (server, memory).
    pub(crate) fn check(self, info: &str) -> Result<(), Unusable> {
        check_version(info)?;
        check_mode(info)?;
        if self.role == Role::State && !self.allow_eviction {
            check_eviction(info)?;
        }
        Ok(())
    }
}

fn check_version(info: &str) -> Result<(), Unusable> {
    let found = field(info, "redis_version").unwrap_or("unknown");
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= MIN_VERSION {
        return Ok(());
    }
    Err(Unusable::permanent(format!("found redis {found}"), "need redis 7.0 or newer, or valkey 7.2 or newer"))
}

/// Refuses a node of a cluster, which has only a part of the keys, and a Sentinel, which has none.
fn check_mode(info: &str) -> Result<(), Unusable> {
    match field(info, "redis_mode") {
        None | Some("standalone") => Ok(()),
        Some(mode) => Err(Unusable::permanent(
            format!("found a redis in {mode} mode"),
            "use a standalone redis: set cluster-enabled no, or the address of the primary instead of a sentinel",
        )),
    }
}

/// Refuses a server that may evict keys. A server without memory limit evicts none under any
/// policy.
fn check_eviction(info: &str) -> Result<(), Unusable> {
    match (field(info, "maxmemory"), field(info, "maxmemory_policy")) {
        (Some("0"), _) | (_, Some("noeviction") | None) => Ok(()),
        (_, Some(policy)) => Err(Unusable::permanent(
            format!("found maxmemory-policy {policy}, which may evict data that exists nowhere else"),
            "set noeviction for locks and channels, or use a separate redis for them (--allow-eviction: leases and \
             messages may be lost at any time)",
        )),
    }
}

/// Returns the value of a field of INFO.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(role: Role, allow_eviction: bool) -> Needs {
        Needs { role, allow_eviction }
    }

    #[test]
    fn the_refusal_of_an_old_server_states_the_requirement() {
        for role in [Role::Cache, Role::State] {
            for supported in ["redis_version:7.0.15\r\n", "redis_version:7.2.4\r\nserver_name:valkey\r\n"] {
                assert_eq!(needs(role, false).check(supported), Ok(()));
            }
            let refusal = needs(role, true).check("# Server\r\nredis_version:6.2.7\r\n").unwrap_err();
            assert_eq!(refusal.to_string(), "found redis 6.2.7: need redis 7.0 or newer, or valkey 7.2 or newer");
        }
    }

    #[test]
    fn a_cluster_node_and_a_sentinel_are_refused() {
        for mode in ["cluster", "sentinel"] {
            let info = format!("redis_version:7.0.15\r\nredis_mode:{mode}\r\n");
            let refusal = needs(Role::Cache, false).check(&info).unwrap_err();
            assert!(refusal.is_permanent() && refusal.finding().contains(mode), "{refusal}");
        }
        assert_eq!(needs(Role::Cache, false).check("redis_version:7.0.15\r\nredis_mode:standalone\r\n"), Ok(()));
    }

    /// Unless `--allow-eviction` is set, or the server has no memory limit.
    #[test]
    fn a_server_that_may_evict_is_refused_for_state() {
        let memory =
            |limit, policy| format!("redis_version:7.0.15\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
        let evicts = memory(1_000_000, "allkeys-lru");

        assert_eq!(needs(Role::State, false).check(&memory(1_000_000, "noeviction")), Ok(()));
        assert_eq!(needs(Role::State, false).check(&memory(0, "allkeys-lru")), Ok(()));
        assert!(needs(Role::State, false).check(&evicts).unwrap_err().to_string().contains("allkeys-lru"));
        assert_eq!(needs(Role::State, true).check(&evicts), Ok(()));
        assert_eq!(needs(Role::Cache, false).check(&evicts), Ok(()));
    }
}
