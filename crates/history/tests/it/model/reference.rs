//! The specified behaviour of the scripts, in plain Rust without Redis.

use std::collections::VecDeque;

use prost::Message as _;
use tidings_history::cache::LoadOutcome;
use tidings_history::model::{Anchor, Message};
use tidings_history::wire;

const TAIL_MESSAGES: usize = 200;
const TAIL_BYTES: usize = 512 * 1024;
const MESSAGE_BYTES: usize = 16 * 1024;
const EARLY_MAX: i64 = 64;

/// The model of one tail and its lease.
#[derive(Default)]
pub(super) struct ReferenceTail {
    pub(super) tail: Option<VecDeque<Message>>,
    /// Index of the loader that holds the lease, and the floor.
    pub(super) lease: Option<(usize, i64)>,
}

impl ReferenceTail {
    pub(super) fn seqs(&self) -> Vec<i64> {
        self.tail.iter().flatten().map(|message| message.seq).collect()
    }

    fn last(&self) -> Option<i64> {
        self.tail.as_ref()?.back().map(|message| message.seq)
    }

    fn raise_floor(&mut self, last: i64) {
        if let Some((_, floor)) = &mut self.lease {
            *floor = last.max(*floor);
        }
    }

    pub(super) fn append(&mut self, messages: &[Message]) {
        let (first, last) = (messages[0].seq, messages[messages.len() - 1].seq);
        self.raise_floor(last);
        let Some(newest) = self.last() else { return };
        if first > newest + EARLY_MAX || messages.iter().any(|message| size(message) > MESSAGE_BYTES) {
            self.tail = None;
            return;
        }
        let contiguous = self.is_contiguous();
        if let Some(tail) = &mut self.tail {
            let start = tail[0].seq;
            for message in messages {
                let index = tail.partition_point(|cached| cached.seq < message.seq);
                let present = tail.get(index).is_some_and(|cached| cached.seq == message.seq);
                if index == tail.len() || !contiguous && !present && message.seq > start {
                    tail.insert(index, message.clone());
                }
            }
            while tail.len() > TAIL_MESSAGES || tail.iter().map(size).sum::<usize>() > TAIL_BYTES {
                tail.pop_front();
            }
        }
    }

    /// Returns true if the tail has no gap.
    fn is_contiguous(&self) -> bool {
        let seqs = self.seqs();
        seqs.windows(2).all(|pair| pair[0] + 1 == pair[1])
    }

    pub(super) fn confirm(&mut self, last: i64) -> bool {
        self.raise_floor(last);
        let seqs = self.seqs();
        seqs.is_empty() || seqs.contains(&last) || last < seqs[0]
    }

    pub(super) fn lease(&mut self, loader: usize) -> bool {
        let free = self.lease.is_none();
        self.lease.get_or_insert((loader, 0));
        free
    }

    pub(super) fn load(&mut self, loader: usize, read: &[Message], last: i64, will_retry: bool) -> LoadOutcome {
        match self.lease {
            Some((owner, _)) if owner != loader => return LoadOutcome::LeaseExpired,
            None => return LoadOutcome::LeaseExpired,
            Some((_, floor)) if floor > last => {
                self.lease = self.lease.filter(|_| will_retry);
                return LoadOutcome::Behind { floor };
            }
            Some(_) => {}
        }
        let mut tail = VecDeque::new();
        for message in read.iter().rev().take(TAIL_MESSAGES) {
            let bytes = size(message) + tail.iter().map(size).sum::<usize>();
            if size(message) > MESSAGE_BYTES || bytes > TAIL_BYTES {
                break;
            }
            tail.push_front(message.clone());
        }
        self.tail = Some(tail).filter(|tail| !tail.is_empty());
        self.lease = None;
        LoadOutcome::Done
    }

    pub(super) fn read(&self, anchor: Anchor, limit: usize, min_seq: i64) -> Option<(i64, Vec<Message>)> {
        let tail = self.tail.as_ref()?;
        let (first, last) = (tail.front()?.seq, tail.back()?.seq);
        if last < min_seq || !self.is_contiguous() {
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

/// Returns the size of a message in a tail, in bytes.
fn size(message: &Message) -> usize {
    wire::message(message.clone()).encoded_len()
}
