//! The Redis of the user service, a cache: its version, its role, and what it does when it is full.

use std::time::{Duration, SystemTime};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tidings_redis::RedisUrl;
use tokio::time::{Instant, timeout};

use super::findings::{self, Findings};
use crate::shown;

/// The oldest that the services use; Valkey begins at 7.2 and says 7.2 here, too.
const OLDEST: (u32, u32) = (7, 0);
/// So full is nearly full, in percent.
const NEARLY_FULL: u64 = 90;
/// How much two clocks may differ.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// Looks at the server behind `url`.
pub(super) async fn look(url: &RedisUrl, patience: Duration, findings: &mut Findings) {
    let title = url.to_string();
    match timeout(patience, ask(url)).await {
        Ok(Ok(told)) => told.judge(&title, findings),
        Ok(Err(error)) => {
            findings.fail(&title, "reachable", error.to_string(), "is it running, and are user and password right?");
        }
        Err(_) => findings.fail(&title, "reachable", "no answer", "is it stopped, or busy with a long command?"),
    }
}

/// What the server tells of itself.
struct Told {
    took: Duration,
    info: String,
    /// How far its clock is from ours.
    apart: Duration,
}

async fn ask(url: &RedisUrl) -> Result<Told, RedisError> {
    let client = redis::Client::open(url.info().clone())?;
    let mut connection: MultiplexedConnection = client.get_multiplexed_async_connection().await?;
    let begin = Instant::now();
    let () = redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop)?;
    let took = begin.elapsed();
    let before = SystemTime::now();
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
    let apart = before.duration_since(theirs).or_else(|_| theirs.duration_since(SystemTime::now())).unwrap_or_default();
    let info = redis::cmd("INFO").arg("everything").query_async(&mut connection).await?;
    Ok(Told { took, info, apart })
}

impl Told {
    fn field(&self, name: &str) -> &str {
        self.info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }

    fn judge(&self, title: &str, findings: &mut Findings) {
        findings.ok(title, "reachable", format!("answered in {}", findings::took(self.took)));
        let version = self.field("redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST {
            findings.ok(title, "version", version);
        } else {
            findings.fail(title, "version", version, "the services need 7.0 or newer, or valkey 7.2 or newer");
        }
        match self.field("role") {
            "master" => findings.ok(title, "role", "primary"),
            role => findings.fail(title, "role", role, "it takes no writes: give the services the primary"),
        }
        if self.apart > CLOCKS_APART {
            let found = format!("{} apart from ours", shown::millis(self.apart));
            findings.warn(title, "clock", found, "let both machines follow NTP");
        } else {
            findings.ok(title, "clock", "like ours");
        }
        self.memory(title, findings);
    }

    /// What happens when it is full?
    fn memory(&self, title: &str, findings: &mut Findings) {
        let check = "memory";
        let (used, most) = (self.number("used_memory"), self.number("maxmemory"));
        let (policy, evicted) = (self.field("maxmemory_policy"), self.number("evicted_keys"));
        let found = match most {
            0 => format!("{} used, no limit, {policy}", mebibytes(used)),
            _ => format!("{} of {} used, {policy}, {evicted} keys evicted", mebibytes(used), mebibytes(most)),
        };
        let full = most > 0 && used.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL);
        match (most, policy) {
            (0, _) => {
                let advice = "right for a Redis that keeps locks and channels, too, with an alarm on its memory; for a cache set \
                              maxmemory and allkeys-lfu";
                findings.warn(title, check, found, advice);
            }
            (_, "noeviction") if full => {
                let advice = "it will refuse to cache: raise maxmemory, or set allkeys-lfu if it is only a cache";
                findings.fail(title, check, found, advice);
            }
            (_, "noeviction") => {
                let advice = "right for locks and channels; one that is only a cache is better off with allkeys-lfu";
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
    use super::super::findings::Verdict;
    use super::*;

    fn judge(info: &str) -> Vec<(Verdict, &'static str)> {
        let mut findings = Findings::default();
        let told = Told { took: Duration::ZERO, info: info.replace(' ', "\r\n"), apart: Duration::ZERO };
        told.judge("redis://a:6379", &mut findings);
        let bad = findings.iter().filter(|finding| finding.verdict != Verdict::Ok);
        bad.map(|finding| (finding.verdict, finding.check)).collect()
    }

    #[test]
    fn a_cache_that_evicts_is_as_it_should_be() {
        let info = "redis_version:7.2.4 role:master used_memory:99 maxmemory:100 maxmemory_policy:allkeys-lfu";

        assert_eq!(judge(info), []);
    }

    #[test]
    fn what_is_too_old_takes_no_writes_or_is_full_fails() {
        let info = "redis_version:6.2.7 role:slave used_memory:95 maxmemory:100 maxmemory_policy:noeviction";
        let fail = |check| (Verdict::Fail, check);

        assert_eq!(judge(info), [fail("version"), fail("role"), fail("memory")]);
    }

    #[test]
    fn what_has_no_limit_is_worth_a_word() {
        let info = "redis_version:7.0.15 role:master used_memory:95 maxmemory:0 maxmemory_policy:noeviction";

        assert_eq!(judge(info), [(Verdict::Warn, "memory")]);
    }
}
