//! Checks of the user service's Redis: version, role, clock, and memory.

use std::time::{Duration, SystemTime};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tidings_redis::RedisUrl;
use tokio::time::{Instant, timeout};

use super::findings::{self, DoctorFindings};
use crate::display;

/// The oldest version that the services support; Valkey, from 7.2 on, reports 7.2 here.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Memory use that counts as nearly full, in percent of `maxmemory`.
const NEARLY_FULL: u64 = 90;
/// The largest clock skew without a warning.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// Checks the server at `url`, in at most `limit`.
pub(super) async fn check(url: &RedisUrl, limit: Duration, findings: &mut DoctorFindings) {
    let title = url.to_string();
    match timeout(limit, read_state(url)).await {
        Ok(Ok(state)) => state.judge(&title, findings),
        Ok(Err(error)) => {
            findings.fail(&title, "reachable", error.to_string(), "is it running, and are user and password right?");
        }
        Err(_) => {
            findings.fail(&title, "reachable", "timeout: no reply", "is it stopped, or busy with a long command?");
        }
    }
}

/// The state of the server, as reported by itself.
struct RedisState {
    /// Round-trip time of a `PING`.
    took: Duration,
    /// The reply to `INFO everything`.
    info: String,
    /// The difference between the server's clock and ours.
    clock_skew: Duration,
}

async fn read_state(url: &RedisUrl) -> Result<RedisState, RedisError> {
    let client = redis::Client::open(url.info().clone())?;
    let mut connection: MultiplexedConnection = client.get_multiplexed_async_connection().await?;
    let begin = Instant::now();
    let () = redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop)?;
    let took = begin.elapsed();
    let before = SystemTime::now();
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
    let clock_skew =
        before.duration_since(theirs).or_else(|_| theirs.duration_since(SystemTime::now())).unwrap_or_default();
    let info = redis::cmd("INFO").arg("everything").query_async(&mut connection).await?;
    Ok(RedisState { took, info, clock_skew })
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
    fn no_memory_limit_is_a_warning() {
        let info = "redis_version:7.0.15 role:master used_memory:95 maxmemory:0 maxmemory_policy:noeviction";

        assert_eq!(judge(info), [(CheckVerdict::Warn, "memory")]);
    }
}
