//! One stream as a test hears it.

use std::time::Duration;

use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Streaming;

use super::PATIENCE;

/// One stream. Dropping it ends it.
pub(crate) struct Ear {
    frames: Streaming<pb::SubscribeResponse>,
    /// Messages of a frame that were not asked for yet.
    rest: std::vec::IntoIter<pb::Message>,
}

impl Ear {
    pub(super) fn new(frames: Streaming<pb::SubscribeResponse>) -> Self {
        Self { frames, rest: Vec::new().into_iter() }
    }

    /// The next frame, whenever it comes.
    pub(crate) async fn next_ever(&mut self) -> Result<Option<Frame>, Box<Failure>> {
        let answer = self.frames.message().await.map_err(|status| Box::new(Failure::from(&status)))?;
        Ok(answer.map(|answer| answer.frame.unwrap()))
    }

    /// The next frame, or why there is none; `None` after the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Box<Failure>> {
        let next = timeout(PATIENCE, self.next_ever()).await;
        next.unwrap_or_else(|_| panic!("no frame within {PATIENCE:?}"))
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        assert_eq!(self.rest.len(), 0, "messages were not asked for");
        self.next().await.unwrap().expect("the stream goes on")
    }

    /// The frame that comes within a time, if one does.
    pub(crate) async fn frame_within(&mut self, time: Duration) -> Option<Frame> {
        timeout(time, self.next_ever()).await.ok()?.unwrap()
    }

    /// The next so many messages; nothing else may come before.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<pb::Message> {
        let mut messages: Vec<_> = self.rest.by_ref().take(count).collect();
        while messages.len() < count {
            match self.frame().await {
                Frame::Messages(frame) => {
                    assert_frame(&frame.messages);
                    self.rest = frame.messages.into_iter();
                    messages.extend(self.rest.by_ref().take(count - messages.len()));
                }
                other => panic!("after {} of {count} messages came {other:?}", messages.len()),
            }
        }
        messages
    }

    /// The offsets of the next so many messages.
    pub(crate) async fn offsets(&mut self, count: usize) -> Vec<i64> {
        self.messages(count).await.iter().map(|message| message.offset).collect()
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        text(&self.messages(1).await[0])
    }

    /// The `CaughtUp` that must come next.
    pub(crate) async fn caught_up(&mut self) -> (String, i64) {
        match self.frame().await {
            Frame::CaughtUp(caught_up) => (caught_up.epoch, caught_up.head),
            other => panic!("expected a CaughtUp, got {other:?}"),
        }
    }

    /// The `Gap` that must come next: epoch, first and last offset.
    pub(crate) async fn gap(&mut self) -> (String, i64, i64) {
        match self.frame().await {
            Frame::Gap(gap) => {
                assert_eq!(gap.reason(), pb::gap::Reason::Trimmed);
                (gap.epoch, gap.first_offset, gap.last_offset)
            }
            other => panic!("expected a Gap, got {other:?}"),
        }
    }

    /// The `Reset` that must come next.
    pub(crate) async fn reset(&mut self) -> (String, i64) {
        match self.frame().await {
            Frame::Reset(reset) => (reset.epoch, reset.head),
            other => panic!("expected a Reset, got {other:?}"),
        }
    }

    /// The `Heartbeat` that must come next.
    pub(crate) async fn heartbeat(&mut self) -> bool {
        match self.frame().await {
            Frame::Heartbeat(heartbeat) => heartbeat.degraded,
            other => panic!("expected a Heartbeat, got {other:?}"),
        }
    }

    /// Waits until nothing but heartbeats has come for a time; anything else may not come.
    pub(crate) async fn assert_silent(&mut self, time: Duration) {
        assert_eq!(self.rest.len(), 0, "messages were not asked for");
        match self.frame_within(time).await {
            None | Some(Frame::Heartbeat(_)) => {}
            Some(other) => panic!("expected nothing, got {other:?}"),
        }
    }
}

/// What a message says.
pub(crate) fn text(message: &pb::Message) -> String {
    String::from_utf8(message.data.to_vec()).unwrap()
}

/// A frame is as large as may be, and without a hole.
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
