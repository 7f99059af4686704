//! A subscriber's stream, with assertions on its frames.

use std::time::Duration;

use tidings_devstack::testing::PATIENCE;
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Streaming;

/// A subscriber's stream. Dropping it ends the stream.
pub(crate) struct FrameStream {
    frames: Streaming<pb::SubscribeResponse>,
    /// Messages of the last frame that were not returned yet.
    rest: std::vec::IntoIter<pb::Message>,
}

impl FrameStream {
    pub(super) fn new(frames: Streaming<pb::SubscribeResponse>) -> Self {
        Self { frames, rest: Vec::new().into_iter() }
    }

    /// Waits for the next frame without a timeout.
    pub(crate) async fn next_without_timeout(&mut self) -> Result<Option<Frame>, Box<Failure>> {
        let response = self.frames.message().await.map_err(|status| Box::new(Failure::from(&status)))?;
        Ok(response.map(|response| response.frame.unwrap()))
    }

    /// Waits for the next frame; returns `None` after the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Box<Failure>> {
        let next = timeout(PATIENCE, self.next_without_timeout()).await;
        next.unwrap_or_else(|_| panic!("no frame within {PATIENCE:?}"))
    }

    /// Waits for the next frame of a stream that must not end.
    pub(crate) async fn frame(&mut self) -> Frame {
        assert_eq!(self.rest.len(), 0, "messages of the last frame are left");
        self.next().await.unwrap().expect("the stream has not ended")
    }

    /// Waits for the next frame; returns `None` if none arrives within `time`.
    pub(crate) async fn frame_within(&mut self, time: Duration) -> Option<Frame> {
        timeout(time, self.next_without_timeout()).await.ok()?.unwrap()
    }

    /// Returns the next `count` messages; no other frame may come before them.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<pb::Message> {
        let mut messages: Vec<_> = self.rest.by_ref().take(count).collect();
        while messages.len() < count {
            match self.frame().await {
                Frame::Messages(frame) => {
                    assert_frame(&frame.messages);
                    self.rest = frame.messages.into_iter();
                    messages.extend(self.rest.by_ref().take(count - messages.len()));
                }
                other => panic!("after {} of {count} messages: {other:?}", messages.len()),
            }
        }
        messages
    }

    /// Returns the offsets of the next `count` messages.
    pub(crate) async fn offsets(&mut self, count: usize) -> Vec<i64> {
        self.messages(count).await.iter().map(|message| message.offset).collect()
    }

    /// Returns the text of the next message.
    pub(crate) async fn text(&mut self) -> String {
        text(&self.messages(1).await[0])
    }

    /// Returns the epoch and head of the `CaughtUp` that must come next.
    pub(crate) async fn caught_up(&mut self) -> (String, i64) {
        match self.frame().await {
            Frame::CaughtUp(caught_up) => (caught_up.epoch, caught_up.head),
            other => panic!("expected a CaughtUp, got {other:?}"),
        }
    }

    /// Returns epoch, first and last offset of the `Gap` that must come next.
    pub(crate) async fn gap(&mut self) -> (String, i64, i64) {
        match self.frame().await {
            Frame::Gap(gap) => {
                assert_eq!(gap.reason(), pb::gap::Reason::Trimmed);
                (gap.epoch, gap.first_offset, gap.last_offset)
            }
            other => panic!("expected a Gap, got {other:?}"),
        }
    }

    /// Returns the epoch and head of the `Reset` that must come next.
    pub(crate) async fn reset(&mut self) -> (String, i64) {
        match self.frame().await {
            Frame::Reset(reset) => (reset.epoch, reset.head),
            other => panic!("expected a Reset, got {other:?}"),
        }
    }

    /// Returns `degraded` of the `Heartbeat` that must come next.
    pub(crate) async fn heartbeat(&mut self) -> bool {
        match self.frame().await {
            Frame::Heartbeat(heartbeat) => heartbeat.degraded,
            other => panic!("expected a Heartbeat, got {other:?}"),
        }
    }

    /// Asserts that the next frame within `time`, if any, is a heartbeat.
    pub(crate) async fn assert_silent(&mut self, time: Duration) {
        assert_eq!(self.rest.len(), 0, "messages of the last frame are left");
        match self.frame_within(time).await {
            None | Some(Frame::Heartbeat(_)) => {}
            Some(other) => panic!("expected no frame, got {other:?}"),
        }
    }
}

/// Returns the data of a message as text.
pub(crate) fn text(message: &pb::Message) -> String {
    String::from_utf8(message.data.to_vec()).unwrap()
}

/// Asserts that a frame is within its limits and has no hole.
pub(crate) fn assert_frame(messages: &[pb::Message]) {
    use prost::Message as _;
    let bytes: usize = messages.iter().map(pb::Message::encoded_len).sum();
    assert!((1..=256).contains(&messages.len()), "{} messages", messages.len());
    assert!(bytes <= 256 * 1024 || messages.len() == 1, "{bytes} bytes");
    for pair in messages.windows(2) {
        assert_eq!((&pair[0].channel, &pair[0].epoch), (&pair[1].channel, &pair[1].epoch));
        assert_eq!(pair[0].offset + 1, pair[1].offset, "a hole within a frame");
    }
}
