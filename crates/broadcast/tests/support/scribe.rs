//! What one subscriber was told of each of its channels, from the beginning of its stream on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_status::Failure;
use tokio::task::JoinHandle;

use super::ear::{Ear, assert_frame, text};
use super::eventually;
use super::ledger::{Account, Told};

/// A subscriber that writes down what it is told, for as long as its stream lasts. Dropping it ends the stream.
pub(crate) struct Scribe {
    accounts: Arc<Mutex<HashMap<String, Account>>>,
    writing: JoinHandle<Result<(), Box<Failure>>>,
}

impl Scribe {
    /// Writes down what a stream tells.
    pub(crate) fn of(mut ear: Ear) -> Self {
        let accounts = Arc::new(Mutex::new(HashMap::<String, Account>::new()));
        let book = Arc::clone(&accounts);
        let writing = tokio::spawn(async move {
            while let Some(frame) = ear.next_ever().await? {
                write(&mut book.lock().unwrap(), frame);
            }
            Ok(())
        });
        Self { accounts, writing }
    }

    /// What was told of a channel until now.
    pub(crate) fn account(&self, channel: &str) -> Account {
        self.accounts.lock().unwrap().get(channel).cloned().unwrap_or_default()
    }

    /// What was told of a channel when it has reached a position.
    pub(crate) async fn at(&self, channel: &str, epoch: &str, offset: i64) -> Account {
        let end = (epoch.to_owned(), offset);
        let reached = async || self.account(channel).position() == end;
        eventually(&format!("{channel} is at {end:?}, it is {:?}", self.account(channel).position()), reached).await;
        self.account(channel)
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

fn write(book: &mut HashMap<String, Account>, frame: Frame) {
    let mut note = |channel: String, told| book.entry(channel).or_default().told.push(told);
    match frame {
        Frame::Messages(frame) => {
            assert_frame(&frame.messages);
            for message in frame.messages {
                let text = text(&message);
                note(message.channel, Told::Message { epoch: message.epoch, offset: message.offset, text });
            }
        }
        Frame::CaughtUp(frame) => note(frame.channel, Told::CaughtUp { epoch: frame.epoch, head: frame.head }),
        Frame::Gap(frame) => {
            let told = Told::Gap { epoch: frame.epoch, first: frame.first_offset, last: frame.last_offset };
            note(frame.channel, told);
        }
        Frame::Reset(frame) => note(frame.channel, Told::Reset { epoch: frame.epoch, head: frame.head }),
        Frame::Heartbeat(_) | Frame::Goodbye(_) => {}
    }
}
