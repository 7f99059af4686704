//! Versions that one stream has sent, or has yet to send.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A version of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionState {
    /// Below 0: unknown.
    pub(super) version: i64,
    /// True if the user does not exist, or no longer.
    pub(super) absent: bool,
}

impl VersionState {
    /// Older than every known version.
    pub(super) const UNKNOWN: Self = Self { version: -1, absent: true };
}

/// The newest version of each id of one stream. Ids are numbered in the order of the registration.
#[derive(Debug)]
pub(super) struct WatchQueue {
    slots: Mutex<Slots>,
    pushed: Notify,
}

#[derive(Debug)]
struct Slots {
    /// One slot for each id.
    by_number: Vec<WatchSlot>,
    /// Numbers of the slots with an unsent version, each once, the oldest first.
    due: VecDeque<usize>,
}

#[derive(Clone, Copy, Debug)]
struct WatchSlot {
    newest: VersionState,
    /// True if `newest` is unsent.
    due: bool,
}

impl WatchQueue {
    /// Creates a queue for this number of ids.
    pub(super) fn new(ids: usize) -> Self {
        let by_number = vec![WatchSlot { newest: VersionState::UNKNOWN, due: false }; ids];
        Self { slots: Mutex::new(Slots { by_number, due: VecDeque::new() }), pushed: Notify::new() }
    }

    /// Stores a version and replaces an unsent one; ignores a version that is not newer.
    pub(super) fn push(&self, number: usize, version: VersionState) {
        let mut slots = self.slots.lock();
        let slot = &mut slots.by_number[number];
        if version.version <= slot.newest.version {
            return;
        }
        slot.newest = version;
        if !std::mem::replace(&mut slot.due, true) {
            slots.due.push_back(number);
            drop(slots);
            self.pushed.notify_one();
        }
    }

    /// Takes all unsent versions, with the numbers of their ids.
    pub(super) fn take(&self) -> Vec<(usize, VersionState)> {
        let mut slots = self.slots.lock();
        let Slots { by_number, due } = &mut *slots;
        let take = |number: usize| {
            by_number[number].due = false;
            (number, by_number[number].newest)
        };
        due.drain(..).map(take).collect()
    }

    /// Waits until there may be an unsent version. Only one task may wait.
    pub(super) async fn ready(&self) {
        self.pushed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(version: i64) -> VersionState {
        VersionState { version, absent: version == 0 }
    }

    #[test]
    fn an_unread_stream_holds_only_the_newest_version_of_each_id() {
        let queue = WatchQueue::new(2);
        for version in 0..10_000 {
            queue.push(1, state(version));
            queue.push(0, state(version / 2));
        }

        let held = queue.slots.lock().due.len();
        assert_eq!(held, 2);
        assert_eq!(queue.take(), [(1, state(9_999)), (0, state(4_999))]);
        assert_eq!(queue.take(), []);
    }

    #[tokio::test]
    async fn an_update_before_the_wait_ends_the_wait() {
        let queue = WatchQueue::new(1);
        queue.push(0, state(1));

        queue.ready().await;

        assert_eq!(queue.take(), [(0, state(1))]);
    }

    proptest! {
        #[test]
        fn versions_are_taken_once_in_order_up_to_the_newest(
            steps in prop::collection::vec(prop_oneof![3 => (0..3_usize, 0..20_i64).prop_map(Some), 1 => Just(None)], 0..200)
        ) {
            let queue = WatchQueue::new(3);
            let (mut taken, mut pushed) = ([-1; 3], [-1; 3]);
            let mut take = |queue: &WatchQueue| {
                for (number, state) in queue.take() {
                    assert!(state.version > taken[number], "{state:?} after {}", taken[number]);
                    taken[number] = state.version;
                }
                taken
            };
            for step in steps {
                if let Some((number, version)) = step {
                    queue.push(number, state(version));
                    pushed[number] = pushed[number].max(version);
                } else {
                    prop_assert_eq!(take(&queue), pushed);
                }
            }
            prop_assert_eq!(take(&queue), pushed);
        }
    }
}
