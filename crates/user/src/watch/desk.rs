//! What one stream was told, and what is new to it.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::lock;

/// A version as it is kept under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// Below 0: nothing is known.
    pub(super) version: i64,
    /// Whether there is no such user, or none any more.
    pub(super) absent: bool,
}

impl Stand {
    /// Nothing is known: older than anything that is.
    pub(super) const UNKNOWN: Self = Self { version: -1, absent: true };
}

/// What one stream was told, and what is new to it: for each of its ids, by number, one version.
#[derive(Debug)]
pub(super) struct Desk {
    sheets: Mutex<Sheets>,
    news: Notify,
}

#[derive(Debug)]
struct Sheets {
    places: Vec<Place>,
    /// The places that have news, each once, the oldest first.
    due: VecDeque<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    newest: Stand,
    /// Whether the newest was not told yet.
    due: bool,
}

impl Desk {
    /// For so many ids.
    pub(super) fn new(ids: usize) -> Self {
        let places = vec![Place { newest: Stand::UNKNOWN, due: false }; ids];
        Self { sheets: Mutex::new(Sheets { places, due: VecDeque::new() }), news: Notify::new() }
    }

    /// Takes a version; one that is not newer changes nothing. What was not told yet is replaced.
    pub(super) fn hear(&self, number: usize, stand: Stand) {
        let mut sheets = lock(&self.sheets);
        let place = &mut sheets.places[number];
        if stand.version <= place.newest.version {
            return;
        }
        place.newest = stand;
        if !std::mem::replace(&mut place.due, true) {
            sheets.due.push_back(number);
            drop(sheets);
            self.news.notify_one();
        }
    }

    /// Takes away what was not told yet.
    pub(super) fn take(&self) -> Vec<(usize, Stand)> {
        let mut sheets = lock(&self.sheets);
        let Sheets { places, due } = &mut *sheets;
        let tell = |number: usize| {
            places[number].due = false;
            (number, places[number].newest)
        };
        due.drain(..).map(tell).collect()
    }

    /// Waits until there may be something to take. Only one may wait.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stand(version: i64) -> Stand {
        Stand { version, absent: version == 0 }
    }

    #[test]
    fn a_stream_that_is_not_read_holds_one_version_of_each_id_the_newest() {
        let desk = Desk::new(2);
        for version in 0..10_000 {
            desk.hear(1, stand(version));
            desk.hear(0, stand(version / 2));
        }

        let held = lock(&desk.sheets).due.len();
        assert_eq!(held, 2);
        assert_eq!(desk.take(), [(1, stand(9_999)), (0, stand(4_999))]);
        assert_eq!(desk.take(), []);
    }

    #[tokio::test]
    async fn news_that_come_before_anybody_waits_wake_who_waits_then() {
        let desk = Desk::new(1);
        desk.hear(0, stand(1));

        desk.news().await;

        assert_eq!(desk.take(), [(0, stand(1))]);
    }

    proptest! {
        #[test]
        fn a_version_is_told_once_in_order_and_the_newest_is_told_in_the_end(
            steps in prop::collection::vec(prop_oneof![3 => (0..3_usize, 0..20_i64).prop_map(Some), 1 => Just(None)], 0..200)
        ) {
            let desk = Desk::new(3);
            let (mut told, mut heard) = ([-1; 3], [-1; 3]);
            let mut take = |desk: &Desk| {
                for (number, stand) in desk.take() {
                    assert!(stand.version > told[number], "{stand:?} after {}", told[number]);
                    told[number] = stand.version;
                }
                told
            };
            for step in steps {
                if let Some((number, version)) = step {
                    desk.hear(number, stand(version));
                    heard[number] = heard[number].max(version);
                } else {
                    prop_assert_eq!(take(&desk), heard);
                }
            }
            prop_assert_eq!(take(&desk), heard);
        }
    }
}
