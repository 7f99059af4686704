//! What the scripts shall do, said once more without Redis.

use std::collections::VecDeque;

use prost::Message as _;
use tidings_history::cache::Loaded;
use tidings_history::model::{Anchor, Message};
use tidings_history::wire;

const MOST_MESSAGES: usize = 200;
const MOST_BYTES: usize = 512 * 1024;
const LONGEST: usize = 16 * 1024;
const EARLIEST: i64 = 64;

/// One tail and its lease.
#[derive(Default)]
pub(super) struct Reference {
    pub(super) tail: Option<VecDeque<Message>>,
    /// Whose it is, and the floor.
    pub(super) lease: Option<(usize, i64)>,
}

impl Reference {
    pub(super) fn numbers(&self) -> Vec<i64> {
        self.tail.iter().flatten().map(|message| message.seq).collect()
    }

    fn last(&self) -> Option<i64> {
        self.tail.as_ref()?.back().map(|message| message.seq)
    }

    fn raise(&mut self, last: i64) {
        if let Some((_, floor)) = &mut self.lease {
            *floor = last.max(*floor);
        }
    }

    pub(super) fn append(&mut self, messages: &[Message]) {
        let (first, last) = (messages[0].seq, messages[messages.len() - 1].seq);
        self.raise(last);
        let Some(known) = self.last() else { return };
        if first > known + EARLIEST || messages.iter().any(|message| size(message) > LONGEST) {
            self.tail = None;
            return;
        }
        let whole = self.is_whole();
        if let Some(tail) = &mut self.tail {
            let start = tail[0].seq;
            for message in messages {
                let place = tail.partition_point(|there| there.seq < message.seq);
                let there = tail.get(place).is_some_and(|there| there.seq == message.seq);
                if place == tail.len() || !whole && !there && message.seq > start {
                    tail.insert(place, message.clone());
                }
            }
            while tail.len() > MOST_MESSAGES || tail.iter().map(size).sum::<usize>() > MOST_BYTES {
                tail.pop_front();
            }
        }
    }

    /// Whether nothing is missing between its oldest and its newest.
    fn is_whole(&self) -> bool {
        let numbers = self.numbers();
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1])
    }

    pub(super) fn reach(&mut self, last: i64) -> bool {
        self.raise(last);
        let numbers = self.numbers();
        numbers.is_empty() || numbers.contains(&last) || last < numbers[0]
    }

    pub(super) fn lease(&mut self, loader: usize) -> bool {
        let free = self.lease.is_none();
        self.lease.get_or_insert((loader, 0));
        free
    }

    pub(super) fn load(&mut self, loader: usize, read: &[Message], last: i64, again: bool) -> Loaded {
        match self.lease {
            Some((owner, _)) if owner != loader => return Loaded::LeaseGone,
            None => return Loaded::LeaseGone,
            Some((_, floor)) if floor > last => {
                self.lease = self.lease.filter(|_| again);
                return Loaded::Behind { floor };
            }
            Some(_) => {}
        }
        let mut tail = VecDeque::new();
        for message in read.iter().rev().take(MOST_MESSAGES) {
            let bytes = size(message) + tail.iter().map(size).sum::<usize>();
            if size(message) > LONGEST || bytes > MOST_BYTES {
                break;
            }
            tail.push_front(message.clone());
        }
        self.tail = Some(tail).filter(|tail| !tail.is_empty());
        self.lease = None;
        Loaded::Done
    }

    pub(super) fn read(&self, anchor: Anchor, limit: usize, min_seq: i64) -> Option<(i64, Vec<Message>)> {
        let tail = self.tail.as_ref()?;
        let (first, last) = (tail.front()?.seq, tail.back()?.seq);
        if last < min_seq || !self.is_whole() {
            return None;
        }
        let within = |from: i64, to: i64| {
            tail.iter().filter(|message| (from..=to).contains(&message.seq)).cloned().collect::<Vec<_>>()
        };
        let limit = limit as i64;
        let messages = match anchor {
            Anchor::Newest => within(last - limit + 1, last),
            Anchor::Before(seq) if seq > first => within(last.min(seq - 1) - limit + 1, last.min(seq - 1)),
            Anchor::After(seq) if seq + 1 >= first => within(seq + 1, seq + limit),
            _ => return None,
        };
        Some((last, messages))
    }
}

/// The bytes of a message in a tail.
fn size(message: &Message) -> usize {
    wire::message(message.clone()).encoded_len()
}
