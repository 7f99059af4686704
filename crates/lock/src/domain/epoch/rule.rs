//! The rule of epochs: when one goes on, and what the next one is.

use std::time::Duration;

use crate::leases::Seen;
use crate::model::{Epoch, TTL_MAX, Token, grace};
use crate::store::{Opening, Row};

/// Whether the epoch goes on: Postgres, Redis and the present reign agree, and there are numbers left.
pub(super) fn agree(row: &Row, seen: &Seen) -> bool {
    seen.began.as_ref().is_some_and(|began| {
        began.epoch == row.epoch && began.reign == row.reign && began.reign == seen.reign && began.seq < Token::SEQ_END
    })
}

/// The epoch to be opened where they do not: above all that anybody knows of. `None` if there is none left.
///
/// Its quarantine is as long as the longest lease that anybody may believe in. At the very first epoch there can be no lease;
/// where Redis knows of one and Postgres of none, the row was lost, and leases may be as long as any. `fresh` says that nobody
/// believes in anything.
pub(super) fn open(row: &Row, seen: &Seen, default_ttl: Duration, fresh: bool) -> Option<Opening> {
    let known = seen.began.as_ref().map_or(Epoch::new(0), |began| began.epoch);
    let last = row.epoch.max(known);
    let believed = if fresh {
        Duration::ZERO
    } else if row.epoch == Epoch::new(0) && seen.began.is_some() {
        TTL_MAX
    } else {
        row.max_ttl.max(row.carry_ttl)
    };
    let quarantine = if believed.is_zero() { Duration::ZERO } else { believed + grace(believed) };
    (last < Epoch::LAST).then(|| Opening {
        row: Row { epoch: last.next(), reign: seen.reign.clone(), max_ttl: default_ttl, carry_ttl: believed },
        quarantine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::Began;

    const TTL: Duration = Duration::from_secs(10);

    fn row(epoch: i64, max_ttl: u64, carry_ttl: u64) -> Row {
        let (max_ttl, carry_ttl) = (Duration::from_secs(max_ttl), Duration::from_secs(carry_ttl));
        Row { epoch: Epoch::new(epoch), reign: "aa".to_owned(), max_ttl, carry_ttl }
    }

    fn seen(reign: &str, epoch: i64, began_in: &str, seq: i64) -> Seen {
        let began = Some(Began { epoch: Epoch::new(epoch), reign: began_in.to_owned(), seq });
        Seen { reign: reign.to_owned(), began }
    }

    fn empty() -> Seen {
        Seen { reign: "aa".to_owned(), began: None }
    }

    #[test]
    fn an_epoch_goes_on_only_where_row_redis_and_reign_agree() {
        assert!(agree(&row(3, 10, 0), &seen("aa", 3, "aa", 7)));
        for other in
            [seen("aa", 2, "aa", 7), seen("aa", 4, "aa", 7), seen("bb", 3, "aa", 7), seen("bb", 3, "bb", 7), empty()]
        {
            assert!(!agree(&row(3, 10, 0), &other), "{other:?}");
        }
    }

    #[test]
    fn an_epoch_whose_numbers_are_used_up_does_not_go_on() {
        assert!(agree(&row(3, 10, 0), &seen("aa", 3, "aa", Token::SEQ_END - 1)));
        assert!(!agree(&row(3, 10, 0), &seen("aa", 3, "aa", Token::SEQ_END)));
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
            let opening = open(&row, &seen, TTL, false).unwrap();
            assert_eq!((opening.row.epoch, opening.row.reign), (Epoch::new(next), seen.reign));
        }
    }

    #[test]
    fn the_last_epoch_has_no_next() {
        assert_eq!(open(&row(Epoch::LAST.get(), 10, 0), &empty(), TTL, false), None);
    }

    #[test]
    fn the_very_first_epoch_has_no_quarantine_and_any_other_as_long_a_one_as_a_lease_may_be_believed_in() {
        let after = |row: Row, seen: Seen| {
            let opening = open(&row, &seen, TTL, false).unwrap();
            (opening.quarantine.as_millis(), opening.row.max_ttl.as_secs(), opening.row.carry_ttl.as_secs())
        };
        assert_eq!(after(row(0, 0, 0), empty()), (0, 10, 0));
        assert_eq!(after(row(3, 10, 0), empty()), (11_100, 10, 10));
        assert_eq!(after(row(3, 60, 10), empty()), (61_600, 10, 60));
        assert_eq!(after(row(3, 10, 60), empty()), (61_600, 10, 60), "an epoch that was opened within a quarantine");
        assert_eq!(after(row(0, 0, 0), seen("aa", 3, "aa", 1)), (304_000, 10, 300), "the row was lost");
    }

    #[test]
    fn a_fresh_start_has_no_quarantine() {
        let opening = open(&row(3, 60, 60), &empty(), TTL, true).unwrap();

        assert_eq!((opening.quarantine, opening.row.carry_ttl), (Duration::ZERO, Duration::ZERO));
    }
}
