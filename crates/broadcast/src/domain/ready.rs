//! Wake-ups of a stream, which show the channels that have messages for it.
//!
//! A stream has one [`ReadyQueue`], and one [`ReadyFlag`] at each of its channels. A flag that is
//! marked puts its index into the queue, once until the stream clears the flag. So quiet channels
//! cost nothing, busy ones take turns, and the queue is never longer than the number of channels.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// The ready channels of one stream, and the waker of the stream.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    ready: Mutex<VecDeque<usize>>,
    waker: AtomicWaker,
}

impl ReadyQueue {
    /// Takes the index of the channel that has been ready longest.
    pub(super) fn pop(&self) -> Option<usize> {
        self.ready.lock().pop_front()
    }

    /// Waits until a channel is ready. Supports one waiter.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.ready.lock().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// Marks one channel of one stream as ready.
#[derive(Debug)]
pub(super) struct ReadyFlag {
    queue: Arc<ReadyQueue>,
    /// Index of the channel in its stream.
    index: usize,
    marked: AtomicBool,
}

impl ReadyFlag {
    pub(super) fn new(queue: &Arc<ReadyQueue>, index: usize) -> Arc<Self> {
        Arc::new(Self { queue: Arc::clone(queue), index, marked: AtomicBool::new(false) })
    }

    /// Marks the channel as ready, and wakes the stream.
    pub(super) fn mark_ready(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            self.queue.ready.lock().push_back(self.index);
            self.queue.waker.wake();
        }
    }

    /// Clears the mark. The stream calls this before it reads, so that later messages mark again.
    pub(super) fn clear(&self) {
        self.marked.store(false, Ordering::Release);
    }
}

/// The flags of all subscribers of one channel. A flag keeps its slot, so removing one is O(1).
#[derive(Debug, Default)]
pub(super) struct ReadyFlags {
    slots: Vec<Option<Arc<ReadyFlag>>>,
    free: Vec<usize>,
}

impl ReadyFlags {
    /// Adds a flag, and returns its slot.
    pub(super) fn add(&mut self, flag: Arc<ReadyFlag>) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(flag);
            return slot;
        }
        self.slots.push(Some(flag));
        self.slots.len() - 1
    }

    /// Removes the flag in a slot, if there is one.
    pub(super) fn remove(&mut self, slot: usize) {
        if self.slots[slot].take().is_some() {
            self.free.push(slot);
        }
    }

    /// Returns the number of flags.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Marks the channel as ready for all its subscribers.
    pub(super) fn mark_all_ready(&self) {
        for flag in self.slots.iter().flatten() {
            flag.mark_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_marked_often_is_queued_once() {
        let queue = Arc::new(ReadyQueue::default());
        let (first, second) = (ReadyFlag::new(&queue, 0), ReadyFlag::new(&queue, 1));

        first.mark_ready();
        second.mark_ready();
        first.mark_ready();

        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(0), Some(1), None));
        first.mark_ready();
        assert_eq!(queue.pop(), None, "the flag was not cleared yet");
        first.clear();
        first.mark_ready();
        assert_eq!(queue.pop(), Some(0));
    }

    #[test]
    fn a_free_slot_is_reused_and_other_flags_keep_theirs() {
        let queue = Arc::new(ReadyQueue::default());
        let mut flags = ReadyFlags::default();
        let slots: Vec<_> = (0..3).map(|index| flags.add(ReadyFlag::new(&queue, index))).collect();

        flags.remove(slots[1]);
        flags.remove(slots[1]);
        assert_eq!(flags.len(), 2);
        assert_eq!(flags.add(ReadyFlag::new(&queue, 7)), slots[1]);

        flags.mark_all_ready();
        let ready: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(ready, [0, 7, 2]);
    }
}
