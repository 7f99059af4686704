//! The ids that are watched: the newest version of each, and who sits there.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::desk::{Desk, Stand};
use crate::model::{UserId, UserVersion};

/// The ids that are watched, in their order, so that a comparison can go through them in parts.
#[derive(Debug, Default)]
pub(super) struct Directory {
    ids: BTreeMap<Arc<str>, Watched>,
    /// The number of the next stream.
    next: u64,
    /// Open streams.
    streams: usize,
    /// Seats at all ids together.
    seats: usize,
}

/// An id that is watched.
#[derive(Debug)]
struct Watched {
    newest: Stand,
    /// In the order of the numbers of their streams, by which one is found.
    seats: Vec<Seat>,
}

/// The place of one stream at one id.
#[derive(Debug)]
struct Seat {
    stream: u64,
    desk: Arc<Desk>,
    /// The number of the id at the desk.
    number: usize,
}

/// A stream that has sat down.
#[derive(Debug)]
pub(super) struct Party {
    stream: u64,
    /// Its ids, by number.
    pub(super) ids: Vec<Arc<str>>,
    pub(super) desk: Arc<Desk>,
}

impl Directory {
    /// Sits a stream down at ids that are different from each other; `None` if more than `limit` seats would be taken.
    pub(super) fn sit_down(&mut self, ids: &[UserId], limit: usize) -> Option<Party> {
        if self.seats + ids.len() > limit {
            return None;
        }
        self.seats += ids.len();
        self.streams += 1;
        let stream = self.next;
        self.next += 1;
        let desk = Arc::new(Desk::new(ids.len()));
        let ids = ids.iter().enumerate().map(|(number, id)| {
            let seat = Seat { stream, desk: Arc::clone(&desk), number };
            let (name, newest) = self.place(id.as_str(), seat);
            desk.hear(number, newest); // W2
            name
        });
        Some(Party { stream, ids: ids.collect(), desk })
    }

    /// Adds a seat at an id; returns the name of the id, shared by all who sit there, and its newest version.
    fn place(&mut self, id: &str, seat: Seat) -> (Arc<str>, Stand) {
        if let Some((name, watched)) = self.ids.range_mut::<str, _>((Included(id), Included(id))).next() {
            watched.seats.push(seat);
            return (Arc::clone(name), watched.newest);
        }
        let name: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&name), Watched { newest: Stand::UNKNOWN, seats: vec![seat] });
        (name, Stand::UNKNOWN)
    }

    /// Lets a stream stand up; what nobody watches any more is forgotten.
    pub(super) fn stand_up(&mut self, party: &Party) {
        self.streams -= 1;
        self.seats -= party.ids.len();
        for id in &party.ids {
            let Some(watched) = self.ids.get_mut(id) else { continue };
            if let Ok(place) = watched.seats.binary_search_by_key(&party.stream, |seat| seat.stream) {
                watched.seats.remove(place);
            }
            if watched.seats.is_empty() {
                self.ids.remove(id);
            }
        }
    }

    /// Takes a version and tells it to all who sit there; returns whether it is news.
    pub(super) fn hear(&mut self, version: &UserVersion) -> bool {
        let Some(watched) = self.ids.get_mut(version.id.as_str()) else { return false };
        if version.version <= watched.newest.version {
            return false;
        }
        watched.newest = Stand { version: version.version, absent: version.absent };
        for seat in &watched.seats {
            seat.desk.hear(seat.number, watched.newest);
        }
        true
    }

    /// The next ids behind one, at most `limit`, each with its newest version.
    pub(super) fn known(&self, after: Option<&UserId>, limit: usize) -> Vec<(UserId, i64)> {
        let after = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        let behind = self.ids.range::<str, _>((after, Unbounded)).take(limit);
        behind.map(|(id, watched)| (UserId::new(id.to_string()), watched.newest.version)).collect()
    }

    /// Open streams, and the seats that they have together.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.streams, self.seats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<UserId> {
        ids.iter().map(|id| UserId::new((*id).to_owned())).collect()
    }

    fn version(id: &str, version: i64) -> UserVersion {
        UserVersion { id: UserId::new(id.to_owned()), version, absent: false }
    }

    fn told(party: &Party) -> Vec<(&str, i64)> {
        party.desk.take().into_iter().map(|(number, stand)| (&*party.ids[number], stand.version)).collect()
    }

    #[test]
    fn who_sits_down_later_hears_what_those_who_sit_there_have_heard() {
        let mut directory = Directory::default();
        let first = directory.sit_down(&ids(&["ada", "bob"]), 9).unwrap();
        assert!(directory.hear(&version("ada", 7)));
        assert!(!directory.hear(&version("ada", 7)), "it is none any more");
        assert!(!directory.hear(&version("cleo", 1)), "nobody sits there");

        let second = directory.sit_down(&ids(&["bob", "ada"]), 9).unwrap();
        directory.hear(&version("bob", 2));

        assert_eq!(told(&first), [("ada", 7), ("bob", 2)]);
        assert_eq!(told(&second), [("ada", 7), ("bob", 2)]);
    }

    #[test]
    fn what_nobody_watches_any_more_is_forgotten_and_others_keep_their_seats() {
        let mut directory = Directory::default();
        let parties: Vec<_> = (0..3).map(|_| directory.sit_down(&ids(&["ada", "bob"]), 9).unwrap()).collect();
        directory.hear(&version("ada", 3));

        directory.stand_up(&parties[1]);
        directory.hear(&version("ada", 4));
        assert_eq!((told(&parties[0]), told(&parties[2])), (vec![("ada", 4)], vec![("ada", 4)]));
        assert_eq!(directory.size(), (2, 4));
        directory.stand_up(&parties[0]);
        directory.stand_up(&parties[2]);

        assert_eq!((directory.size(), directory.ids.len()), ((0, 0), 0));
    }

    #[test]
    fn no_seat_is_taken_above_the_limit() {
        let mut directory = Directory::default();
        let party = directory.sit_down(&ids(&["a", "b"]), 3).unwrap();

        assert!(directory.sit_down(&ids(&["a", "b"]), 3).is_none());
        assert!(directory.sit_down(&ids(&["a"]), 3).is_some());
        directory.stand_up(&party);
        assert!(directory.sit_down(&ids(&["c", "d"]), 3).is_some());
    }

    #[test]
    fn a_comparison_goes_through_all_ids_in_parts() {
        let mut directory = Directory::default();
        directory.sit_down(&ids(&["d", "b", "a", "c", "e"]), 9).unwrap();
        directory.hear(&version("c", 3));

        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let part = directory.known(after.as_ref(), 2);
            let Some((last, _)) = part.last() else { break };
            after = Some(last.clone());
            seen.extend(part.into_iter().map(|(id, version)| (id.into_string(), version)));
        }

        let expected = [("a", -1), ("b", -1), ("c", 3), ("d", -1), ("e", -1)];
        assert_eq!(seen, expected.map(|(id, version)| (id.to_owned(), version)));
    }
}
