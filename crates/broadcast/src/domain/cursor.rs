//! The position of one subscriber in one channel, and the frames that move it.

use crate::model::{ChannelName, ChannelPage, ChannelState, Position, StartPosition, SubscriptionFrame};

/// The position of one subscriber in one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Position up to which messages were delivered or reported missing.
    pub(super) position: Position,
    /// The ring's loss count when the subscriber learned that the channel has no epoch.
    pub(super) losses: u64,
    /// Head to reach before `CaughtUp` is sent; `None` once it was sent.
    catch_up_offset: Option<i64>,
}

impl Cursor {
    /// Makes a cursor without a position, at a ring with this loss count.
    pub(super) fn unpositioned(losses: u64) -> Self {
        Self { position: Position::default(), losses, catch_up_offset: None }
    }

    /// Moves to the requested start; returns a `Reset` if the channel has no such position. `state`
    /// is the state of the channel when the subscription began.
    pub(super) fn start(
        &mut self,
        channel: &ChannelName,
        start: StartPosition,
        state: &ChannelState,
    ) -> Option<SubscriptionFrame> {
        let head = state.head;
        let (position, reset) = match start {
            StartPosition::Latest => (head, false),
            StartPosition::Last(last) => {
                let before = (head.offset - last).max(state.oldest - 1);
                (Position { offset: before, ..head }, false)
            }
            StartPosition::After(after) if after.epoch == head.epoch && after.offset <= head.offset => (after, false),
            // The subscriber has seen no epoch and requests all messages of the present one.
            StartPosition::After(Position { epoch: None, .. }) => (Position::beginning(head.epoch), false),
            StartPosition::After(_) | StartPosition::UnknownEpoch => (Position::beginning(head.epoch), true),
        };
        self.position = position;
        self.catch_up_offset = Some(head.offset);
        reset.then(|| SubscriptionFrame::Reset { channel: channel.clone(), head })
    }

    /// Advances by a page from Redis. `ring` is the head and the loss count of the ring, read after
    /// the page.
    ///
    /// Returns the frames to send, in order; none if the page brings nothing new.
    pub(super) fn apply_page(
        &mut self,
        channel: &ChannelName,
        page: &ChannelPage,
        ring: (Position, u64),
    ) -> Vec<SubscriptionFrame> {
        let mut frames = Vec::new();
        let ChannelState { head, oldest, .. } = page.state;
        let (ring_head, losses) = ring;
        let no_loss = self.position.epoch.is_some() || self.losses == losses;
        let continues = head.epoch == self.position.epoch && head.offset >= self.position.offset && no_loss;
        // The first epoch after none, and no sign of another between them: nothing is lost.
        let first_epoch = self.position.epoch.is_none() && no_loss && ring_head.epoch == head.epoch;
        if continues || first_epoch {
            frames.extend(self.take_caught_up(channel));
        } else {
            frames.push(SubscriptionFrame::Reset { channel: channel.clone(), head });
            self.catch_up_offset = self.catch_up_offset.map(|_| head.offset);
        }
        if !continues {
            self.losses = losses;
            self.position = Position::beginning(head.epoch);
        }
        if oldest > self.position.offset + 1 {
            let (first, last) = (self.position.offset + 1, oldest - 1);
            frames.push(SubscriptionFrame::Gap { channel: channel.clone(), epoch: head.epoch, first, last });
            self.position.offset = last;
        }
        if page.first == self.position.offset + 1 && !page.messages.is_empty() {
            frames.push(SubscriptionFrame::Messages(page.messages.clone()));
            self.position.offset = page.last();
        }
        frames.extend(self.take_caught_up(channel));
        frames
    }

    /// Returns the `CaughtUp` frame once, when the cursor has reached its offset.
    pub(super) fn take_caught_up(&mut self, channel: &ChannelName) -> Option<SubscriptionFrame> {
        self.catch_up_offset.take_if(|offset| self.position.offset >= *offset)?;
        Some(SubscriptionFrame::CaughtUp { channel: channel.clone(), position: self.position })
    }
}
