//! Where one subscriber is in one channel, and what it is told on its way.

use crate::model::{ChannelName, Frame, Page, Position, Stand, Start};

/// Where one subscriber is in one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Up to where everything was delivered or told.
    pub(super) position: Position,
    /// What the ring counted as losses when the subscriber learned that there is no epoch.
    pub(super) losses: u64,
    /// The head that has to be reached before the subscriber is told that it has caught up; `None` once it was.
    goal: Option<i64>,
}

impl Cursor {
    /// A cursor that is nowhere yet, at a ring that counts so many losses.
    pub(super) fn nowhere(losses: u64) -> Self {
        Self { position: Position::default(), losses, goal: None }
    }

    /// Goes to the start that was asked for; returns the `Reset` if there is no such place. `stand` is where the
    /// channel stood when the subscription began.
    pub(super) fn begin(&mut self, channel: &ChannelName, start: Start, stand: &Stand) -> Option<Frame> {
        let head = stand.head;
        let (position, lost) = match start {
            Start::Latest => (head, false),
            Start::Last(last) => {
                let before = (head.offset - last).max(stand.oldest - 1);
                (Position { offset: before, ..head }, false)
            }
            Start::After(after) if after.epoch == head.epoch && after.offset <= head.offset => (after, false),
            // All that the channel ever had is wanted, and it has something.
            Start::After(Position { epoch: None, .. }) => (Position::beginning(head.epoch), false),
            Start::After(_) | Start::Elsewhere => (Position::beginning(head.epoch), true),
        };
        self.position = position;
        self.goal = Some(head.offset);
        lost.then(|| Frame::Reset { channel: channel.clone(), head })
    }

    /// Goes on by what Redis has. `present` is where the ring is and what it counts as losses, as read after the page.
    ///
    /// Returns what the subscriber is told, in order; nothing if the page has nothing for it.
    pub(super) fn meet(&mut self, channel: &ChannelName, page: &Page, present: (Position, u64)) -> Vec<Frame> {
        let mut told = Vec::new();
        let Stand { head, oldest, .. } = page.stand;
        let (ring, losses) = present;
        let unharmed = self.position.epoch.is_some() || self.losses == losses;
        let continues = head.epoch == self.position.epoch && head.offset >= self.position.offset && unharmed;
        // The first epoch since there was none, and nothing says that there was another: nothing is lost.
        let first = self.position.epoch.is_none() && unharmed && ring.epoch == head.epoch;
        if continues || first {
            told.extend(self.caught_up(channel));
        } else {
            told.push(Frame::Reset { channel: channel.clone(), head });
            self.goal = self.goal.map(|_| head.offset);
        }
        if !continues {
            self.losses = losses;
            self.position = Position::beginning(head.epoch);
        }
        if oldest > self.position.offset + 1 {
            let (first, last) = (self.position.offset + 1, oldest - 1);
            told.push(Frame::Gap { channel: channel.clone(), epoch: head.epoch, first, last });
            self.position.offset = last;
        }
        if page.first == self.position.offset + 1 && !page.messages.is_empty() {
            told.push(Frame::Messages(page.messages.clone()));
            self.position.offset = page.last();
        }
        told.extend(self.caught_up(channel));
        told
    }

    /// Says that the subscriber has caught up, if it has, once.
    pub(super) fn caught_up(&mut self, channel: &ChannelName) -> Option<Frame> {
        self.goal.take_if(|goal| self.position.offset >= *goal)?;
        Some(Frame::CaughtUp { channel: channel.clone(), position: self.position })
    }
}
