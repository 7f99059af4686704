//! The rule of epochs: when one goes on, and what the next one is.

use std::time::Duration;

use crate::leases::Seen;
use crate::model::{Epoch, TTL_MAX, Token, grace};
use crate::store::{Opening, Row};

/// How long whoever has opened an epoch may take to begin it in Redis, before others open another one. Nothing depends on it:
/// instances that start together end up in one epoch, without a quarantine for those that nobody worked in.
const HEAD_START: Duration = Duration::from_millis(500);

/// What is to be done, after Postgres and Redis were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// All agree: this is the epoch.
    Keep,
    /// Somebody has just opened it, and has yet to begin it.
    Wait,
    /// They do not agree: this one is to be opened.
    Open(Opening),
    /// They do not agree, and no epoch is left.
    UsedUp,
}

/// Decides. The epoch goes on where Postgres, Redis and the present reign agree, and there are numbers left. Else the next one
/// is above all that anybody knows of.
///
/// Its quarantine is as long as the longest lease that anybody may believe in. At the very first epoch there can be no lease;
/// where Redis knows of one and Postgres of none, the row was lost, and leases may be as long as any. `fresh` says that nobody
/// believes in anything.
pub(super) fn decide(row: &Row, seen: &Seen, default_ttl: Duration, fresh: bool) -> Decision {
    let nothing = Epoch::new(0);
    let known = seen.began.as_ref().map_or(nothing, |began| began.epoch);
    if agree(row, seen) {
        return Decision::Keep;
    }
    if known < row.epoch && row.reign == seen.reign && row.age < HEAD_START {
        return Decision::Wait;
    }
    let last = row.epoch.max(known);
    if last >= Epoch::LAST {
        return Decision::UsedUp;
    }
    let believed = if fresh {
        Duration::ZERO
    } else if row.epoch == nothing && seen.began.is_some() {
        TTL_MAX
    } else {
        row.max_ttl.max(row.carry_ttl)
    };
    let quarantine = if believed.is_zero() { Duration::ZERO } else { believed + grace(believed) };
    let (epoch, reign) = (last.next(), seen.reign.clone());
    Decision::Open(Opening { epoch, reign, max_ttl: default_ttl, carry_ttl: believed, quarantine })
}

fn agree(row: &Row, seen: &Seen) -> bool {
    seen.began.as_ref().is_some_and(|began| {
        began.epoch == row.epoch && began.reign == row.reign && began.reign == seen.reign && began.seq < Token::SEQ_END
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::Began;

    const TTL: Duration = Duration::from_secs(10);

    fn row(epoch: i64, max_ttl: u64, carry_ttl: u64) -> Row {
        let (max_ttl, carry_ttl) = (Duration::from_secs(max_ttl), Duration::from_secs(carry_ttl));
        Row { epoch: Epoch::new(epoch), reign: "aa".to_owned(), max_ttl, carry_ttl, age: HEAD_START }
    }

    fn seen(reign: &str, epoch: i64, began_in: &str, seq: i64) -> Seen {
        let began = Some(Began { epoch: Epoch::new(epoch), reign: began_in.to_owned(), seq });
        Seen { reign: reign.to_owned(), began }
    }

    fn empty() -> Seen {
        Seen { reign: "aa".to_owned(), began: None }
    }

    fn open(row: &Row, seen: &Seen, fresh: bool) -> Opening {
        match decide(row, seen, TTL, fresh) {
            Decision::Open(opening) => opening,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_epoch_goes_on_only_where_row_redis_and_reign_agree() {
        assert_eq!(decide(&row(3, 10, 0), &seen("aa", 3, "aa", 7), TTL, false), Decision::Keep);
        let others =
            [seen("aa", 2, "aa", 7), seen("aa", 4, "aa", 7), seen("bb", 3, "aa", 7), seen("bb", 3, "bb", 7), empty()];
        for other in others {
            open(&row(3, 10, 0), &other, false);
        }
    }

    #[test]
    fn an_epoch_whose_numbers_are_used_up_does_not_go_on() {
        assert_eq!(decide(&row(3, 10, 0), &seen("aa", 3, "aa", Token::SEQ_END - 1), TTL, false), Decision::Keep);
        assert_eq!(open(&row(3, 10, 0), &seen("aa", 3, "aa", Token::SEQ_END), false).epoch, Epoch::new(4));
    }

    #[test]
    fn an_epoch_that_was_just_opened_for_this_reign_is_waited_for() {
        let young = Row { age: HEAD_START / 2, ..row(3, 10, 0) };

        assert_eq!(decide(&young, &empty(), TTL, false), Decision::Wait);
        assert_eq!(decide(&young, &seen("aa", 2, "aa", 7), TTL, false), Decision::Wait);
        assert_eq!(decide(&young, &seen("aa", 3, "aa", 7), TTL, false), Decision::Keep);
        assert_eq!(
            open(&young, &seen("bb", 2, "aa", 7), false).epoch,
            Epoch::new(4),
            "whoever opened it will be refused"
        );
        assert_eq!(open(&young, &seen("aa", 4, "aa", 7), false).epoch, Epoch::new(5), "nor would it help");
    }

    #[test]
    fn the_next_epoch_is_above_both_postgres_and_redis() {
        for (row, seen, next) in [
            (row(0, 0, 0), empty(), 1),
            (row(3, 10, 0), empty(), 4),
            (row(3, 10, 0), seen("bb", 3, "aa", 1), 4),
            (row(3, 10, 0), seen("bb", 8, "aa", 1), 9),
            (row(8, 10, 0), seen("bb", 3, "aa", 1), 9),
        ] {
            let opening = open(&row, &seen, false);
            assert_eq!((opening.epoch, opening.reign), (Epoch::new(next), seen.reign));
        }
    }

    #[test]
    fn the_last_epoch_has_no_next() {
        assert_eq!(decide(&row(Epoch::LAST.get(), 10, 0), &empty(), TTL, false), Decision::UsedUp);
    }

    #[test]
    fn the_very_first_epoch_has_no_quarantine_and_any_other_as_long_a_one_as_a_lease_may_be_believed_in() {
        let after = |row: Row, seen: Seen| {
            let opening = open(&row, &seen, false);
            (opening.quarantine.as_millis(), opening.max_ttl.as_secs(), opening.carry_ttl.as_secs())
        };
        assert_eq!(after(row(0, 0, 0), empty()), (0, 10, 0));
        assert_eq!(after(row(3, 10, 0), empty()), (11_100, 10, 10));
        assert_eq!(after(row(3, 60, 10), empty()), (61_600, 10, 60));
        assert_eq!(after(row(3, 10, 60), empty()), (61_600, 10, 60), "an epoch that was opened within a quarantine");
        assert_eq!(after(row(0, 0, 0), seen("aa", 3, "aa", 1)), (304_000, 10, 300), "the row was lost");
    }

    #[test]
    fn a_fresh_start_has_no_quarantine() {
        let opening = open(&row(3, 60, 60), &empty(), true);

        assert_eq!((opening.quarantine, opening.carry_ttl), (Duration::ZERO, Duration::ZERO));
    }
}
