//! A subscriber that records the events of each of its channels, from the beginning of its stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidings_devstack::testing::eventually;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_status::Failure;
use tokio::task::JoinHandle;

use super::ledger::{ReceivedEvent, Transcript};
use super::stream::{FrameStream, assert_frame, text};

/// Records the events of a stream until it ends. Dropping it ends the stream.
pub(crate) struct Recorder {
    transcripts: Arc<Mutex<HashMap<String, Transcript>>>,
    recording: JoinHandle<Result<(), Box<Failure>>>,
}

impl Recorder {
    /// Starts to record a stream.
    pub(crate) fn start(mut stream: FrameStream) -> Self {
        let transcripts = Arc::new(Mutex::new(HashMap::<String, Transcript>::new()));
        let shared = Arc::clone(&transcripts);
        let recording = tokio::spawn(async move {
            while let Some(frame) = stream.next_without_timeout().await? {
                record(&mut shared.lock().unwrap(), frame);
            }
            Ok(())
        });
        Self { transcripts, recording }
    }

    /// Returns the events of a channel received until now.
    pub(crate) fn transcript(&self, channel: &str) -> Transcript {
        self.transcripts.lock().unwrap().get(channel).cloned().unwrap_or_default()
    }

    /// Waits until a channel has reached a position, and returns its events.
    pub(crate) async fn transcript_at(&self, channel: &str, epoch: &str, offset: i64) -> Transcript {
        let end = (epoch.to_owned(), offset);
        let reached = async || self.transcript(channel).position() == end;
        eventually(&format!("{channel} is at {end:?}, it is {:?}", self.transcript(channel).position()), reached).await;
        self.transcript(channel)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.recording.abort();
    }
}

fn record(transcripts: &mut HashMap<String, Transcript>, frame: Frame) {
    let mut push = |channel: String, event| transcripts.entry(channel).or_default().events.push(event);
    match frame {
        Frame::Messages(frame) => {
            assert_frame(&frame.messages);
            for message in frame.messages {
                let text = text(&message);
                push(message.channel, ReceivedEvent::Message { epoch: message.epoch, offset: message.offset, text });
            }
        }
        Frame::CaughtUp(frame) => push(frame.channel, ReceivedEvent::CaughtUp { epoch: frame.epoch, head: frame.head }),
        Frame::Gap(frame) => {
            let gap = ReceivedEvent::Gap { epoch: frame.epoch, first: frame.first_offset, last: frame.last_offset };
            push(frame.channel, gap);
        }
        Frame::Reset(frame) => push(frame.channel, ReceivedEvent::Reset { epoch: frame.epoch, head: frame.head }),
        Frame::Heartbeat(_) | Frame::Goodbye(_) => {}
    }
}
