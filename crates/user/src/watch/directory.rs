//! Watched ids: the newest version and the subscribers of each.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::queue::{VersionState, WatchQueue};
use crate::model::{UserId, UserVersion};

/// Watched ids in ascending order, so that a comparison can page through them.
#[derive(Debug, Default)]
pub(super) struct WatchDirectory {
    ids: BTreeMap<Arc<str>, WatchedId>,
    /// Number of the next stream.
    next: u64,
    /// Number of open streams.
    streams: usize,
    /// Number of subscribers of all ids together.
    subscribers: usize,
}

/// State of one watched id.
#[derive(Debug)]
struct WatchedId {
    newest: VersionState,
    /// In ascending order of their streams' numbers, for binary search.
    subscribers: Vec<WatchSubscriber>,
}

/// One stream's interest in one id.
#[derive(Debug)]
struct WatchSubscriber {
    stream: u64,
    queue: Arc<WatchQueue>,
    /// Number of the id in `queue`.
    number: usize,
}

/// A registered stream.
#[derive(Debug)]
pub(super) struct Registration {
    stream: u64,
    /// Watched ids, by their numbers in `queue`.
    pub(super) ids: Vec<Arc<str>>,
    pub(super) queue: Arc<WatchQueue>,
}

impl WatchDirectory {
    /// Registers a stream for distinct ids; `None` if that would exceed `limit` subscribers.
    pub(super) fn register(&mut self, ids: &[UserId], limit: usize) -> Option<Registration> {
        if self.subscribers + ids.len() > limit {
            return None;
        }
        self.subscribers += ids.len();
        self.streams += 1;
        let stream = self.next;
        self.next += 1;
        let queue = Arc::new(WatchQueue::new(ids.len()));
        let ids = ids.iter().enumerate().map(|(number, id)| {
            let subscriber = WatchSubscriber { stream, queue: Arc::clone(&queue), number };
            let (name, newest) = self.subscribe(id.as_str(), subscriber);
            queue.push(number, newest); // W2
            name
        });
        Some(Registration { stream, ids: ids.collect(), queue })
    }

    /// Adds a subscriber of an id; returns the id, shared by all its subscribers, and its newest
    /// version.
    fn subscribe(&mut self, id: &str, subscriber: WatchSubscriber) -> (Arc<str>, VersionState) {
        if let Some((name, watched)) = self.ids.range_mut::<str, _>((Included(id), Included(id))).next() {
            watched.subscribers.push(subscriber);
            return (Arc::clone(name), watched.newest);
        }
        let name: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&name), WatchedId { newest: VersionState::UNKNOWN, subscribers: vec![subscriber] });
        (name, VersionState::UNKNOWN)
    }

    /// Removes a stream, and the ids that were watched by no other.
    pub(super) fn unregister(&mut self, registration: &Registration) {
        self.streams -= 1;
        self.subscribers -= registration.ids.len();
        for id in &registration.ids {
            let Some(watched) = self.ids.get_mut(id) else { continue };
            let by_stream = |subscriber: &WatchSubscriber| subscriber.stream;
            if let Ok(index) = watched.subscribers.binary_search_by_key(&registration.stream, by_stream) {
                watched.subscribers.remove(index);
            }
            if watched.subscribers.is_empty() {
                self.ids.remove(id);
            }
        }
    }

    /// Stores a version and pushes it to all subscribers; returns true if it is newer than the
    /// known one.
    pub(super) fn update(&mut self, version: &UserVersion) -> bool {
        let Some(watched) = self.ids.get_mut(version.id.as_str()) else { return false };
        if version.version <= watched.newest.version {
            return false;
        }
        watched.newest = VersionState { version: version.version, absent: version.absent };
        for subscriber in &watched.subscribers {
            subscriber.queue.push(subscriber.number, watched.newest);
        }
        true
    }

    /// Returns up to `limit` ids that follow `after`, each with its newest version.
    pub(super) fn known_versions(&self, after: Option<&UserId>, limit: usize) -> Vec<(UserId, i64)> {
        let after = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        let following = self.ids.range::<str, _>((after, Unbounded)).take(limit);
        following.map(|(id, watched)| (UserId::new(id.to_string()), watched.newest.version)).collect()
    }

    /// Number of open streams, and of their subscribers together.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.streams, self.subscribers)
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

    fn taken(registration: &Registration) -> Vec<(&str, i64)> {
        registration
            .queue
            .take()
            .into_iter()
            .map(|(number, state)| (&*registration.ids[number], state.version))
            .collect()
    }

    #[test]
    fn a_later_subscriber_gets_the_versions_of_the_earlier_ones() {
        let mut directory = WatchDirectory::default();
        let first = directory.register(&ids(&["ada", "bob"]), 9).unwrap();
        assert!(directory.update(&version("ada", 7)));
        assert!(!directory.update(&version("ada", 7)), "a repeated version is not new");
        assert!(!directory.update(&version("cleo", 1)), "the id has no subscriber");

        let second = directory.register(&ids(&["bob", "ada"]), 9).unwrap();
        directory.update(&version("bob", 2));

        assert_eq!(taken(&first), [("ada", 7), ("bob", 2)]);
        assert_eq!(taken(&second), [("ada", 7), ("bob", 2)]);
    }

    #[test]
    fn an_id_without_subscribers_is_removed_and_others_stay() {
        let mut directory = WatchDirectory::default();
        let registrations: Vec<_> = (0..3).map(|_| directory.register(&ids(&["ada", "bob"]), 9).unwrap()).collect();
        directory.update(&version("ada", 3));

        directory.unregister(&registrations[1]);
        directory.update(&version("ada", 4));
        assert_eq!((taken(&registrations[0]), taken(&registrations[2])), (vec![("ada", 4)], vec![("ada", 4)]));
        assert_eq!(directory.size(), (2, 4));
        directory.unregister(&registrations[0]);
        directory.unregister(&registrations[2]);

        assert_eq!((directory.size(), directory.ids.len()), ((0, 0), 0));
    }

    #[test]
    fn a_registration_above_the_limit_is_refused() {
        let mut directory = WatchDirectory::default();
        let registration = directory.register(&ids(&["a", "b"]), 3).unwrap();

        assert!(directory.register(&ids(&["a", "b"]), 3).is_none());
        assert!(directory.register(&ids(&["a"]), 3).is_some());
        directory.unregister(&registration);
        assert!(directory.register(&ids(&["c", "d"]), 3).is_some());
    }

    #[test]
    fn known_versions_pages_through_all_ids() {
        let mut directory = WatchDirectory::default();
        directory.register(&ids(&["d", "b", "a", "c", "e"]), 9).unwrap();
        directory.update(&version("c", 3));

        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = directory.known_versions(after.as_ref(), 2);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page.into_iter().map(|(id, version)| (id.into_string(), version)));
        }

        let expected = [("a", -1), ("b", -1), ("c", 3), ("d", -1), ("e", -1)];
        assert_eq!(seen, expected.map(|(id, version)| (id.to_owned(), version)));
    }
}
