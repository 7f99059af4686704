//! What a server has to be, so that a service may use it.

use std::sync::Arc;

use crate::{Args, Role};

/// The oldest Redis we know to work; Valkey begins at 7.2 and says 7.2 here, too.
const MIN_VERSION: (u32, u32) = (7, 0);

/// Why a server must not be used: what was found, and what is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(Arc<str>);

/// What a service needs of its server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) role: Role,
    /// A state is kept although the server may evict it.
    allow_eviction: bool,
}

impl Needs {
    pub(crate) fn new(args: &Args, role: Role) -> Self {
        Self { role, allow_eviction: args.allow_eviction }
    }

    /// Compares them with what INFO (server, memory) says.
    pub(crate) fn are_met(self, info: &str) -> Result<(), Unfit> {
        check_version(info)?;
        if self.role == Role::State && !self.allow_eviction {
            check_eviction(info)?;
        }
        Ok(())
    }
}

fn check_version(info: &str) -> Result<(), Unfit> {
    let found = field(info, "redis_version").unwrap_or("unknown");
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= MIN_VERSION {
        return Ok(());
    }
    Err(Unfit(format!("found redis {found}, need 7.0 or newer, or valkey 7.2 or newer").into()))
}

/// What is nowhere else must not be evicted. A server without a limit evicts nothing, whatever its policy.
fn check_eviction(info: &str) -> Result<(), Unfit> {
    match (field(info, "maxmemory"), field(info, "maxmemory_policy")) {
        (Some("0"), _) | (_, Some("noeviction") | None) => Ok(()),
        (_, Some(policy)) => Err(Unfit(
            format!(
                "found maxmemory-policy {policy}, which lets redis forget what is nowhere else: need noeviction for locks \
                 and channels, or a redis of their own (--allow-eviction: leases and messages may be lost at any time)"
            )
            .into(),
        )),
    }
}

/// The value of a field of INFO.
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
    fn an_old_server_is_named_and_so_is_what_is_needed() {
        for role in [Role::Cache, Role::State] {
            for fit in ["redis_version:7.0.15\r\n", "redis_version:7.2.4\r\nserver_name:valkey\r\n"] {
                assert_eq!(needs(role, false).are_met(fit), Ok(()));
            }
            let refusal = needs(role, true).are_met("# Server\r\nredis_version:6.2.7\r\n").unwrap_err();
            assert_eq!(refusal.to_string(), "found redis 6.2.7, need 7.0 or newer, or valkey 7.2 or newer");
        }
    }

    #[test]
    fn a_server_that_may_evict_keeps_no_state_unless_that_is_allowed() {
        let memory =
            |limit, policy| format!("redis_version:7.0.15\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
        let evicts = memory(1_000_000, "allkeys-lru");

        assert_eq!(needs(Role::State, false).are_met(&memory(1_000_000, "noeviction")), Ok(()));
        assert_eq!(needs(Role::State, false).are_met(&memory(0, "allkeys-lru")), Ok(()));
        assert!(needs(Role::State, false).are_met(&evicts).unwrap_err().to_string().contains("allkeys-lru"));
        assert_eq!(needs(Role::State, true).are_met(&evicts), Ok(()));
        assert_eq!(needs(Role::Cache, false).are_met(&evicts), Ok(()));
    }
}
