//! Checks of the user service's Redis: TLS, credentials, permissions, version, role, clock, memory.

use std::time::{Duration, SystemTime};

use tidings_redis::{Redis, Role, cmd};
use tidings_user::cache::PERMISSIONS;
use tokio::time::Instant;

use super::findings::{self, DoctorFindings};
use crate::display;

/// The oldest version that the services support; Valkey, from 7.2 on, reports 7.2 here.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Memory use that counts as nearly full, in percent of `maxmemory`.
const NEARLY_FULL: u64 = 90;
/// The largest clock skew without a warning.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// Checks the server at `args.redis_url` as the user service would use it, in at most `limit` per
/// step.
pub(super) async fn check(mut args: tidings_redis::Args, limit: Duration, findings: &mut DoctorFindings) {
    let title = args.redis_url.to_string();
    (args.redis_lanes, args.redis_connect_timeout, args.redis_timeout) = (1, limit.into(), Some(limit.into()));
    tls(&title, &args, findings);
    let redis = match Redis::open_with(&args, tidings_user::cache::SERVICE, Role::Cache, PERMISSIONS) {
        Ok(redis) => redis,
        Err(error) => return findings.fail(&title, "settings", error.to_string(), "correct the URL or the file"),
    };
    let _ = redis.check_compatibility().await; // the same finding as below
    if let Some(unusable) = redis.unusable() {
        return findings.fail(&title, "usable", unusable.finding(), unusable.cure());
    }
    match read_state(&redis).await {
        Ok(state) => {
            permissions(&title, &redis.describe(), findings);
            state.judge(&title, findings);
        }
        Err(error) => {
            let found = format!("{error} ({})", redis.describe());
            findings.fail(&title, "reachable", found, "is it running, or busy with a long command?");
        }
    }
}

/// Checks that passwords and profiles are protected on the network.
fn tls(title: &str, args: &tidings_redis::Args, findings: &mut DoctorFindings) {
    if args.redis_url.is_local() {
        findings.ok(title, "tls", "not needed: no network is in between");
    } else if args.redis_url.is_encrypted() {
        findings.ok(title, "tls", "encrypted and verified");
    } else {
        let advice = "use rediss:// in its URL, with --redis-ca if the CA is private";
        findings.warn(title, "tls", "plain text over the network", advice);
    }
}

/// Checks that no feature is off; `described` comes from a connected client.
fn permissions(title: &str, described: &str, findings: &mut DoctorFindings) {
    match described.split_once("; ") {
        Some((_, remark)) => findings.warn(title, "permissions", remark, "grant the permission as shown"),
        None => findings.ok(title, "permissions", "complete"),
    }
}

/// The state of the server, as reported by itself.
struct RedisState {
    /// Round-trip time of an `INFO`.
    took: Duration,
    /// The reply to `INFO`.
    info: String,
    /// The difference between the server's clock and ours.
    clock_skew: Duration,
}

async fn read_state(redis: &Redis) -> Result<RedisState, tidings_redis::Error> {
    let mut lane = redis.reader().await?;
    let (begin, before) = (Instant::now(), SystemTime::now());
    let info: String = lane.send(&cmd("INFO")).await?;
    let mut state = RedisState { took: begin.elapsed(), info, clock_skew: Duration::ZERO };
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_micros(state.number("server_time_usec"));
    state.clock_skew =
        before.duration_since(theirs).or_else(|_| theirs.duration_since(SystemTime::now())).unwrap_or_default();
    Ok(state)
}

impl RedisState {
    fn field(&self, name: &str) -> &str {
        self.info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }

    fn judge(&self, title: &str, findings: &mut DoctorFindings) {
        findings.ok(title, "reachable", format!("responded in {}", findings::render_duration(self.took)));
        let version = self.field("redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= VERSION_MIN {
            findings.ok(title, "version", version);
        } else {
            findings.fail(title, "version", version, "upgrade it: the services need redis 7.0 or valkey 7.2, or newer");
        }
        match self.field("role") {
            "master" => findings.ok(title, "role", "primary"),
            role => {
                findings.fail(title, "role", role, "connect the services to the primary: a replica takes no writes");
            }
        }
        if self.clock_skew > CLOCK_SKEW_MAX {
            let found = format!("skew of {} to ours", display::millis(self.clock_skew));
            findings.warn(title, "clock", found, "synchronize both machines with NTP");
        } else {
            findings.ok(title, "clock", "no skew to ours");
        }
        self.memory(title, findings);
    }

    /// Checks memory limit, memory use and eviction policy.
    fn memory(&self, title: &str, findings: &mut DoctorFindings) {
        let check = "memory";
        let (used, limit) = (self.number("used_memory"), self.number("maxmemory"));
        let (policy, evicted) = (self.field("maxmemory_policy"), self.number("evicted_keys"));
        let found = match limit {
            0 => format!("{} used, no limit, {policy}", mebibytes(used)),
            _ => format!("{} of {} used, {policy}, {evicted} keys evicted", mebibytes(used), mebibytes(limit)),
        };
        let full = limit > 0 && used.saturating_mul(100) >= limit.saturating_mul(NEARLY_FULL);
        match (limit, policy) {
            (0, _) => {
                let advice = "for a cache set maxmemory and allkeys-lfu; a Redis that also holds locks and channels needs no \
                              limit, but an alert on its memory";
                findings.warn(title, check, found, advice);
            }
            (_, "noeviction") if full => {
                let advice = "raise maxmemory, or set allkeys-lfu if it is only a cache: when full it refuses writes";
                findings.fail(title, check, found, advice);
            }
            (_, "noeviction") => {
                let advice = "right for locks and channels; if it is only a cache, set allkeys-lfu";
                findings.warn(title, check, found, advice);
            }
            _ => findings.ok(title, check, found),
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::super::findings::CheckVerdict;
    use super::*;

    fn judge(info: &str) -> Vec<(CheckVerdict, &'static str)> {
        let mut findings = DoctorFindings::default();
        let state = RedisState { took: Duration::ZERO, info: info.replace(' ', "\r\n"), clock_skew: Duration::ZERO };
        state.judge("redis://a:6379", &mut findings);
        let bad = findings.iter().filter(|finding| finding.verdict != CheckVerdict::Ok);
        bad.map(|finding| (finding.verdict, finding.check)).collect()
    }

    #[test]
    fn a_cache_that_evicts_is_ok() {
        let info = "redis_version:7.2.4 role:master used_memory:99 maxmemory:100 maxmemory_policy:allkeys-lfu";

        assert_eq!(judge(info), []);
    }

    #[test]
    fn an_old_version_a_replica_and_full_memory_fail() {
        let info = "redis_version:6.2.7 role:slave used_memory:95 maxmemory:100 maxmemory_policy:noeviction";
        let fail = |check| (CheckVerdict::Fail, check);

        assert_eq!(judge(info), [fail("version"), fail("role"), fail("memory")]);
    }

    #[test]
    fn plain_text_to_redis_over_a_network_is_a_warning() {
        let verdict = |url: &str| {
            let mut findings = DoctorFindings::default();
            tls("", &tidings_redis::Args::new(url.parse().unwrap()), &mut findings);
            findings.iter().next().unwrap().verdict
        };

        assert_eq!(verdict("redis://cache:6379"), CheckVerdict::Warn);
        assert_eq!(verdict("rediss://cache:6379"), CheckVerdict::Ok);
        assert_eq!(verdict("redis://127.0.0.1:6379"), CheckVerdict::Ok);
    }

    #[test]
    fn no_memory_limit_is_a_warning() {
        let info = "redis_version:7.0.15 role:master used_memory:95 maxmemory:0 maxmemory_policy:noeviction";

        assert_eq!(judge(info), [(CheckVerdict::Warn, "memory")]);
    }
}
