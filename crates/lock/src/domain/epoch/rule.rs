//! The epoch rule: when an epoch continues, and the next epoch otherwise.

use std::time::Duration;

use crate::leases::EpochReply;
use crate::model::{FencingToken, LockEpoch, TTL_MAX, grace};
use crate::store::{NewEpoch, Row};

/// Time for the activation of an opened epoch, before another instance opens the next one.
/// Correctness does not depend on it: it makes instances that start together agree on one epoch,
/// without a quarantine for epochs that were never used.
const ACTIVATION_TIMEOUT: Duration = Duration::from_millis(500);

/// Decision after both Postgres and Redis were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// All agree on the epoch: it continues.
    Keep,
    /// Another instance has just opened the epoch and has yet to activate it.
    Wait,
    /// They disagree: this epoch is to be opened.
    Open(NewEpoch),
    /// They disagree, and no epoch is left.
    Exhausted,
}

/// Leases of earlier runs of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierLeases {
    /// Clients may hold some of them.
    MayBeHeld,
    /// The operator promises that no client holds one.
    Over,
}

/// Decides on the epoch. It continues if Postgres, Redis and the present incarnation agree and it
/// has sequence numbers left. Otherwise the next epoch is above every epoch that either of them
/// knows.
///
/// The quarantine of the next epoch lasts as long as the longest lease that may still be held. The
/// very first epoch follows no lease. A row is committed before its epoch is activated in Redis, so
/// a row behind Redis, or none, means that Postgres lost commits: a lease may be as long as
/// [`TTL_MAX`].
pub(super) fn decide(row: &Row, redis: &EpochReply, default_ttl: Duration, earlier: EarlierLeases) -> Decision {
    let none = LockEpoch::new(0);
    let in_redis = redis.stored.as_ref().map_or(none, |stored| stored.epoch);
    if agree(row, redis) {
        return Decision::Keep;
    }
    if in_redis < row.epoch && row.incarnation == redis.incarnation && row.age < ACTIVATION_TIMEOUT {
        return Decision::Wait;
    }
    let last = row.epoch.max(in_redis);
    if last >= LockEpoch::LAST {
        return Decision::Exhausted;
    }
    let outstanding_ttl = if earlier == EarlierLeases::Over {
        Duration::ZERO
    } else if in_redis > row.epoch {
        TTL_MAX
    } else {
        row.max_ttl.max(row.carry_ttl)
    };
    let quarantine = if outstanding_ttl.is_zero() { Duration::ZERO } else { outstanding_ttl + grace(outstanding_ttl) };
    let (epoch, incarnation) = (last.next(), redis.incarnation.clone());
    Decision::Open(NewEpoch { epoch, incarnation, max_ttl: default_ttl, carry_ttl: outstanding_ttl, quarantine })
}

fn agree(row: &Row, redis: &EpochReply) -> bool {
    redis.stored.as_ref().is_some_and(|stored| {
        stored.epoch == row.epoch
            && stored.incarnation == row.incarnation
            && stored.incarnation == redis.incarnation
            && stored.seq < FencingToken::SEQ_END
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::StoredEpoch;

    const TTL: Duration = Duration::from_secs(10);

    fn row(epoch: i64, max_ttl: u64, carry_ttl: u64) -> Row {
        let (max_ttl, carry_ttl) = (Duration::from_secs(max_ttl), Duration::from_secs(carry_ttl));
        Row { epoch: LockEpoch::new(epoch), incarnation: "aa".to_owned(), max_ttl, carry_ttl, age: ACTIVATION_TIMEOUT }
    }

    fn redis(incarnation: &str, epoch: i64, stored_incarnation: &str, seq: i64) -> EpochReply {
        let stored =
            Some(StoredEpoch { epoch: LockEpoch::new(epoch), incarnation: stored_incarnation.to_owned(), seq });
        EpochReply { incarnation: incarnation.to_owned(), stored }
    }

    fn empty() -> EpochReply {
        EpochReply { incarnation: "aa".to_owned(), stored: None }
    }

    fn open(row: &Row, redis: &EpochReply, earlier: EarlierLeases) -> NewEpoch {
        match decide(row, redis, TTL, earlier) {
            Decision::Open(new_epoch) => new_epoch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_epoch_continues_only_if_row_redis_and_incarnation_agree() {
        assert_eq!(decide(&row(3, 10, 0), &redis("aa", 3, "aa", 7), TTL, EarlierLeases::MayBeHeld), Decision::Keep);
        let others = [
            redis("aa", 2, "aa", 7),
            redis("aa", 4, "aa", 7),
            redis("bb", 3, "aa", 7),
            redis("bb", 3, "bb", 7),
            empty(),
        ];
        for other in others {
            open(&row(3, 10, 0), &other, EarlierLeases::MayBeHeld);
        }
    }

    #[test]
    fn an_epoch_without_free_sequence_numbers_does_not_continue() {
        assert_eq!(
            decide(&row(3, 10, 0), &redis("aa", 3, "aa", FencingToken::SEQ_END - 1), TTL, EarlierLeases::MayBeHeld),
            Decision::Keep
        );
        assert_eq!(
            open(&row(3, 10, 0), &redis("aa", 3, "aa", FencingToken::SEQ_END), EarlierLeases::MayBeHeld).epoch,
            LockEpoch::new(4)
        );
    }

    /// Unless its activation would be refused.
    #[test]
    fn a_freshly_opened_epoch_of_this_incarnation_is_awaited() {
        let young = Row { age: ACTIVATION_TIMEOUT / 2, ..row(3, 10, 0) };

        assert_eq!(decide(&young, &empty(), TTL, EarlierLeases::MayBeHeld), Decision::Wait);
        assert_eq!(decide(&young, &redis("aa", 2, "aa", 7), TTL, EarlierLeases::MayBeHeld), Decision::Wait);
        assert_eq!(decide(&young, &redis("aa", 3, "aa", 7), TTL, EarlierLeases::MayBeHeld), Decision::Keep);
        let of_another_incarnation = open(&young, &redis("bb", 2, "aa", 7), EarlierLeases::MayBeHeld);
        assert_eq!(of_another_incarnation.epoch, LockEpoch::new(4), "its activation would be refused");
        let behind_redis = open(&young, &redis("aa", 4, "aa", 7), EarlierLeases::MayBeHeld);
        assert_eq!(behind_redis.epoch, LockEpoch::new(5), "its activation would be refused");
    }

    #[test]
    fn the_next_epoch_is_above_both_postgres_and_redis() {
        for (row, redis, next) in [
            (row(0, 0, 0), empty(), 1),
            (row(3, 10, 0), empty(), 4),
            (row(3, 10, 0), redis("bb", 3, "aa", 1), 4),
            (row(3, 10, 0), redis("bb", 8, "aa", 1), 9),
            (row(8, 10, 0), redis("bb", 3, "aa", 1), 9),
        ] {
            let new_epoch = open(&row, &redis, EarlierLeases::MayBeHeld);
            assert_eq!((new_epoch.epoch, new_epoch.incarnation), (LockEpoch::new(next), redis.incarnation));
        }
    }

    #[test]
    fn the_last_epoch_has_no_next() {
        assert_eq!(
            decide(&row(LockEpoch::LAST.get(), 10, 0), &empty(), TTL, EarlierLeases::MayBeHeld),
            Decision::Exhausted
        );
    }

    /// Any other epoch has one as long as the longest lease that may still be held.
    #[test]
    fn only_the_first_epoch_has_no_quarantine() {
        let after = |row: Row, redis: EpochReply| {
            let new_epoch = open(&row, &redis, EarlierLeases::MayBeHeld);
            (new_epoch.quarantine.as_millis(), new_epoch.max_ttl.as_secs(), new_epoch.carry_ttl.as_secs())
        };
        assert_eq!(after(row(0, 0, 0), empty()), (0, 10, 0));
        assert_eq!(after(row(3, 10, 0), empty()), (11_100, 10, 10));
        assert_eq!(after(row(3, 60, 10), empty()), (61_600, 10, 60));
        assert_eq!(after(row(3, 10, 60), empty()), (61_600, 10, 60), "opened during a quarantine");
        assert_eq!(after(row(0, 0, 0), redis("aa", 3, "aa", 1)), (304_000, 10, 300), "the row was lost");
    }

    #[test]
    fn a_fresh_start_has_no_quarantine() {
        let new_epoch = open(&row(3, 60, 60), &empty(), EarlierLeases::Over);

        assert_eq!((new_epoch.quarantine, new_epoch.carry_ttl), (Duration::ZERO, Duration::ZERO));
    }
}
