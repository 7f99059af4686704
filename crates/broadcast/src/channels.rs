//! Redis: the channels, each with its numbering and the newest of its messages.
//!
//! `m:{channel}` is a hash: the epoch, the reign of the server that wrote it, the offset and the time of the newest
//! message. `s:{channel}` is a stream of the newest messages, `k:{channel}:<request id>` remembers who published what.
//! All three are believed only in the reign that they were written in: every script compares it, also those that only
//! read.

mod answer;
mod turns;

use std::fmt;
use std::time::Duration;

use tidings_redis::{Call, Lane, Redis, Script, Value, Written};

pub use tidings_redis::Error;
pub use turns::Turn;

use self::turns::Turns;
use crate::model::{ChannelName, Epoch, NewMessage, Page, Position, Published, Stand};
use crate::wire;

/// How long the numbering of a channel outlives its last message: who has been away longer begins anew anyway.
const META_LIFE: Duration = Duration::from_hours(30 * 24);
/// How long a request id is remembered, as the contract says.
const REQUEST_LIFE: Duration = Duration::from_mins(10);
/// The most messages of one page, as many as one frame may have.
pub const PAGE_MESSAGES: usize = 256;
/// The most bytes of one page, as many as one frame may have.
pub const PAGE_BYTES: usize = 256 * 1024;
/// The most channels that are asked about in one round trip: few enough to be answered within one answer time-out.
pub const CHANNELS_MAX: usize = 500;

/// How much of a channel is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The most messages.
    pub count: u16,
    /// How long.
    pub age: Duration,
}

/// The channels.
pub struct Channels {
    redis: Redis,
    kept: Kept,
    turns: Turns,
    publish: Script,
    read: Script,
    head: Script,
}

impl Channels {
    /// The channels in one Redis.
    pub fn new(redis: Redis, kept: Kept) -> Self {
        Self {
            redis,
            kept,
            turns: Turns::new(),
            publish: Script::new(include_str!("channels/publish.lua")),
            read: Script::new(include_str!("channels/read.lua")),
            head: Script::new(include_str!("channels/head.lua")),
        }
    }

    /// Waits until these messages may be published; `None` if too many others are on their way for too long.
    pub async fn turn(&self, messages: &[NewMessage]) -> Option<Turn<'_>> {
        self.turns.wait(messages).await
    }

    /// Publishes messages, those of one channel in the order given, and returns what became of each. One round trip.
    ///
    /// None is published twice: nothing on the way to Redis sends a publish again. Therefore no key is remembered for a
    /// message without a request id; one of our making would only cost memory.
    ///
    /// Where it is doubtful, some may have been published.
    pub async fn publish(&self, messages: &[NewMessage]) -> Written<Vec<Published>> {
        let Some(first) = messages.first() else {
            return Written::Done(Vec::new());
        };
        // One lane for all: what is sent over it is done in order. Calls that overlap promise no order among them.
        let mut lane = match self.redis.writer(first.channel.as_str()).await {
            Ok(lane) => lane,
            Err(error) => return Written::NotDone(error),
        };
        let calls: Vec<Call<'_>> = messages.iter().map(|message| self.publication(&lane, message)).collect();
        let written = match &calls[..] {
            [one] => lane.write(one).await.map(|answer| vec![answer]),
            many => lane.write_all_once(many).await,
        };
        written.and_then(|answers: Vec<Value>| answers.into_iter().map(answer::published).collect())
    }

    fn publication(&self, lane: &Lane, message: &NewMessage) -> Call<'_> {
        let channel = &message.channel;
        let body = wire::body(message);
        let mut call = self.publish.key(meta_key(lane, channel));
        call.key(stream_key(lane, channel)).arg(Epoch::random().to_string());
        let keyed = message.request_id.as_ref().map(|id| {
            let key = lane.key(format_args!("k:{{{channel}}}:{id}"));
            (key, wire::fingerprint(&body))
        });
        call.arg(wire::caused(body, &message.trace_parent));
        match &keyed {
            Some((key, fingerprint)) => call.key(key).arg(&fingerprint[..]),
            None => call.arg(""),
        };
        call.arg(self.kept.count).arg(millis(self.kept.age)).arg(millis(META_LIFE)).arg(millis(REQUEST_LIFE));
        call.arg(lane.channel(format_args!("{}", ear(channel))));
        call
    }

    /// Reads what follows a position, at most a page; from the oldest message on if the channel is in another epoch, or
    /// not that far. One round trip.
    pub async fn read(&self, channel: &ChannelName, after: Position) -> Result<Page, Error> {
        let mut lane = self.redis.reader().await?;
        let answer: Vec<Value> = lane.read(&self.reading(&lane, channel, after, PAGE_MESSAGES)).await?;
        answer::page(answer, after)
    }

    /// Says where each channel stands. One round trip.
    pub async fn stands<'a>(&self, channels: impl Iterator<Item = &'a ChannelName>) -> Result<Vec<Stand>, Error> {
        let mut lane = self.redis.reader().await?;
        let beginning = Position::default();
        let calls: Vec<_> = channels.map(|channel| self.reading(&lane, channel, beginning, 0)).collect();
        let answers: Vec<Vec<Value>> = lane.read_all(&calls).await?;
        answers.into_iter().map(|answer| Ok(answer::page(answer, beginning)?.stand)).collect()
    }

    fn reading(&self, lane: &Lane, channel: &ChannelName, after: Position, messages: usize) -> Call<'_> {
        let mut call = self.read.key(meta_key(lane, channel));
        call.key(stream_key(lane, channel));
        call.arg(after.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()).arg(after.offset);
        call.arg(messages).arg(PAGE_BYTES).arg(millis(self.kept.age));
        call
    }

    /// The heads of channels. One round trip.
    pub async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Position>, Error> {
        let mut lane = self.redis.reader().await?;
        let calls: Vec<_> = channels.iter().map(|channel| self.head.key(meta_key(&lane, channel))).collect();
        let answers: Vec<(String, i64)> = lane.read_all(&calls).await?;
        answers.into_iter().map(|(epoch, head)| answer::position(epoch.as_bytes(), head)).collect()
    }

    /// Whether Redis answers. One round trip.
    pub async fn answers(&self) -> bool {
        self.redis.ping().await
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("redis", &self.redis).field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// The pub/sub channel of a channel, as a [`Subscriber`](tidings_redis::Subscriber) knows it.
pub fn ear(channel: &ChannelName) -> String {
    format!("p:{{{channel}}}")
}

/// The name of the channel whose pub/sub channel this is.
pub fn heard_on(ear: &str) -> Option<&str> {
    ear.strip_prefix("p:{")?.strip_suffix('}')
}

fn meta_key(lane: &Lane, channel: &ChannelName) -> String {
    lane.key(format_args!("m:{{{channel}}}"))
}

fn stream_key(lane: &Lane, channel: &ChannelName) -> String {
    lane.key(format_args!("s:{{{channel}}}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
