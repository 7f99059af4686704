//! Durations as scripts and `PX` take them: in whole milliseconds, and with jitter.

use std::time::Duration;

/// Jitter of a TTL in percent: up to this much shorter or longer.
const TTL_JITTER_PERCENT: u64 = 15;

/// Returns a duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a TTL in milliseconds, at least 1, up to 15 % shorter or longer: keys that are stored
/// together must not expire together.
///
/// `random` chooses the jitter. Instances that have to agree on it pass the same number.
pub fn jittered_ttl(ttl: Duration, random: u64) -> u64 {
    millis(jittered(ttl, TTL_JITTER_PERCENT, random)).max(1)
}

/// Returns a duration of whole milliseconds that is up to `percent` shorter or longer, as `random`
/// chooses.
pub(crate) fn jittered(duration: Duration, percent: u64, random: u64) -> Duration {
    Duration::from_millis(millis(duration) * (100 - percent + random % (2 * percent + 1)) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_covers_its_range_and_no_more() {
        let ttls: Vec<u64> = (0..31).map(|random| jittered_ttl(Duration::from_secs(10), random)).collect();

        assert_eq!((ttls[0], ttls[15], ttls[30]), (8_500, 10_000, 11_500));
        assert!(ttls.is_sorted());
        assert_eq!(jittered_ttl(Duration::from_secs(10), 31), 8_500, "any number chooses one");
    }

    #[test]
    fn no_ttl_is_zero() {
        assert_eq!(jittered_ttl(Duration::ZERO, 0), 1);
        assert_eq!(jittered_ttl(Duration::from_millis(1), 0), 1);
    }
}
