//! The channels in Redis: the numbering of each channel, and its newest messages.
//!
//! - `m:{channel}` is a hash: epoch, incarnation of the Redis server that wrote it, offset and time
//!   of the newest message.
//! - `s:{channel}` is a stream of the newest messages.
//! - `k:{channel}:<request id>` is the result of a publish, for deduplication.
//!
//! All three are valid only in the incarnation that wrote them. Every script compares it, including
//! those that only read.

mod limiter;
mod reply;

use std::fmt;
use std::iter;
use std::time::Duration;

use tidings_redis::{Call, Lane, Permissions, Redis, Script, Value, WriteOutcome, millis};

pub use limiter::PublishPermit;
pub use tidings_redis::Error;

use self::limiter::PublishLimiter;
use crate::model::{
    ChannelEpoch, ChannelName, ChannelPage, ChannelState, Position, PublishOutcome, UnpublishedMessage,
};
use crate::wire;

/// TTL of a channel's numbering after its last message. A subscriber that returns later gets a
/// `Reset`.
const META_TTL: Duration = Duration::from_hours(30 * 24);
/// TTL of a request id, as promised by the contract.
const REQUEST_ID_TTL: Duration = Duration::from_mins(10);
/// Most messages in a page, which is sent as one frame.
pub const PAGE_MESSAGES: usize = 256;
/// Most bytes of messages in a page, unless a single message is larger.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Most bytes of messages that are sent at once, unless a single message is larger: about 60 ms of
/// a slow link (4 MiB/s), after which other publishes get their turn.
const PART_BYTES: usize = 256 * 1024;
/// Most channels named in one pipeline: few enough for the replies to arrive within the timeout.
pub const CHANNELS_MAX: usize = 500;

/// Commands of the scripts and of notifications.
pub const PERMISSIONS: Permissions = Permissions {
    required: &[
        "del K",
        "get K",
        "hmget K field",
        "hset K field value",
        "pexpire K 1",
        "publish C message",
        "subscribe C",
        "time",
        "unsubscribe",
        "xadd K * field value",
        "xdel K 1-1",
        "xrange K - +",
    ],
    optional: None,
};

/// Limits of the messages kept per channel.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Most messages kept per channel, 1 to 1,000.
    pub count: u16,
    /// Age at which a message is dropped.
    pub age: Duration,
}

/// The channels in one Redis.
pub struct ChannelStore {
    redis: Redis,
    retention: Retention,
    limiter: PublishLimiter,
    publish: Script,
    read: Script,
    head: Script,
}

impl ChannelStore {
    /// Creates the store over `redis`.
    pub fn new(redis: Redis, retention: Retention) -> Self {
        Self {
            redis,
            retention,
            limiter: PublishLimiter::new(),
            publish: Script::new(include_str!("channels/publish.lua")),
            read: Script::new(include_str!("channels/read.lua")),
            head: Script::new(include_str!("channels/head.lua")),
        }
    }

    /// Waits until these messages may be published; returns `None` if too many others are in
    /// flight for 500 ms.
    pub async fn admit(&self, messages: &[UnpublishedMessage]) -> Option<PublishPermit<'_>> {
        self.limiter.acquire(messages).await
    }

    /// Waits until a further part of a batch may be published.
    pub async fn admit_further(&self, messages: &[UnpublishedMessage]) -> Option<PublishPermit<'_>> {
        self.limiter.acquire_further(messages).await
    }

    /// Publishes a message. One round trip.
    ///
    /// It is not published twice, because nothing between here and Redis resends a publish. So a
    /// message without a request id needs no deduplication key.
    pub async fn publish(&self, message: &UnpublishedMessage) -> WriteOutcome<PublishOutcome> {
        let mut lane = match self.redis.writer(message.channel.as_str()).await {
            Ok(lane) => lane,
            Err(error) => return WriteOutcome::NotDone(error),
        };
        let call = self.publish_call(&lane, message);
        lane.write(&call).await.and_then(reply::publish_outcome)
    }

    /// Publishes messages like [`publish`](Self::publish), those of one channel in the order given.
    /// Returns their outcomes in the same order. One round trip.
    ///
    /// With [`WriteOutcome::Unknown`], some of the messages may have been published.
    pub async fn publish_all(&self, messages: &[UnpublishedMessage]) -> WriteOutcome<Vec<PublishOutcome>> {
        let first = match messages {
            [] => return WriteOutcome::Done(Vec::new()),
            [one] => return self.publish(one).await.map(|outcome| vec![outcome]),
            [first, ..] => first,
        };
        // Redis executes the commands of one lane in order. Concurrent calls have no order.
        let mut lane = match self.redis.writer(first.channel.as_str()).await {
            Ok(lane) => lane,
            Err(error) => return WriteOutcome::NotDone(error),
        };
        let calls: Vec<Call<'_>> = messages.iter().map(|message| self.publish_call(&lane, message)).collect();
        let written = lane.write_all_once(&calls).await;
        written.and_then(|replies: Vec<Value>| replies.into_iter().map(reply::publish_outcome).collect())
    }

    fn publish_call(&self, lane: &Lane, message: &UnpublishedMessage) -> Call<'_> {
        let channel = &message.channel;
        let body = wire::encode_body(message);
        let mut call = self.publish.key(meta_key(lane, channel));
        call.key(stream_key(lane, channel)).arg(ChannelEpoch::random().to_string());
        let request = message.request_id.as_ref().map(|id| {
            let key = lane.key(format_args!("k:{{{channel}}}:{id}"));
            (key, wire::fingerprint(&body))
        });
        call.arg(wire::with_trace_parent(body, &message.trace_parent));
        match &request {
            Some((key, fingerprint)) => call.key(key).arg(&fingerprint[..]),
            None => call.arg(""),
        };
        call.arg(self.retention.count).arg(millis(self.retention.age));
        call.arg(millis(META_TTL)).arg(millis(REQUEST_ID_TTL));
        call.arg(lane.channel(format_args!("{}", pubsub_channel(channel))));
        call
    }

    /// Reads the page behind a position. If the position is in another epoch, or ahead of the head,
    /// the page starts at the oldest message kept. One round trip.
    pub async fn read(&self, channel: &ChannelName, after: Position) -> Result<ChannelPage, Error> {
        let mut lane = self.redis.reader().await?;
        lane.expect_bytes(PAGE_BYTES);
        let reply: Vec<Value> = lane.read(&self.read_call(&lane, channel, after, PAGE_MESSAGES)).await?;
        reply::page(reply, after)
    }

    /// Reads the states of channels. One round trip.
    pub async fn states<'a>(
        &self,
        channels: impl Iterator<Item = &'a ChannelName>,
    ) -> Result<Vec<ChannelState>, Error> {
        let mut lane = self.redis.reader().await?;
        let beginning = Position::default();
        let calls: Vec<_> = channels.map(|channel| self.read_call(&lane, channel, beginning, 0)).collect();
        let replies: Vec<Vec<Value>> = lane.read_all(&calls).await?;
        replies.into_iter().map(|reply| Ok(reply::page(reply, beginning)?.state)).collect()
    }

    fn read_call(&self, lane: &Lane, channel: &ChannelName, after: Position, messages: usize) -> Call<'_> {
        let mut call = self.read.key(meta_key(lane, channel));
        call.key(stream_key(lane, channel));
        call.arg(after.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()).arg(after.offset);
        call.arg(messages).arg(PAGE_BYTES).arg(millis(self.retention.age));
        call
    }

    /// Reads the heads of channels. One round trip.
    pub async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Position>, Error> {
        let mut lane = self.redis.reader().await?;
        let calls: Vec<_> = channels.iter().map(|channel| self.head.key(meta_key(&lane, channel))).collect();
        let replies: Vec<(String, i64)> = lane.read_all(&calls).await?;
        replies.into_iter().map(|(epoch, head)| reply::position(epoch.as_bytes(), head)).collect()
    }

    /// Returns true if Redis replies. One round trip.
    pub async fn is_reachable(&self) -> bool {
        self.redis.ping().await
    }
}

impl fmt::Debug for ChannelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelStore")
            .field("redis", &self.redis)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// Splits messages into parts that are published one after the other.
pub fn parts(messages: &[UnpublishedMessage]) -> impl Iterator<Item = &[UnpublishedMessage]> {
    let mut rest = messages;
    iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|message| {
            bytes += message.data.len();
            bytes <= PART_BYTES
        });
        let (part, others) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// Returns the pub/sub channel of a channel, without the prefix that a
/// [`Subscriber`](tidings_redis::Subscriber) adds.
pub fn pubsub_channel(channel: &ChannelName) -> String {
    format!("p:{{{channel}}}")
}

/// Returns the channel that a pub/sub channel belongs to; `None` for any other name.
pub fn parse_pubsub_channel(pubsub_channel: &str) -> Option<&str> {
    pubsub_channel.strip_prefix("p:{")?.strip_suffix('}')
}

fn meta_key(lane: &Lane, channel: &ChannelName) -> String {
    lane.key(format_args!("m:{{{channel}}}"))
}

fn stream_key(lane: &Lane, channel: &ChannelName) -> String {
    lane.key(format_args!("s:{{{channel}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(size: usize) -> UnpublishedMessage {
        UnpublishedMessage {
            channel: ChannelName::new("news"),
            data: vec![0; size].into(),
            content_type: String::new(),
            attributes: std::collections::BTreeMap::new(),
            request_id: None,
            trace_parent: String::new(),
        }
    }

    #[test]
    fn a_part_has_at_most_256_kib_or_one_message() {
        let sizes = |sizes: &[usize]| {
            let messages: Vec<_> = sizes.iter().map(|size| message(*size)).collect();
            parts(&messages).map(<[_]>::len).collect::<Vec<_>>()
        };

        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 500]), [500]);
        assert_eq!(sizes(&[65_536; 9]), [4, 4, 1]);
        assert_eq!(sizes(&[PART_BYTES + 1, 1, PART_BYTES]), [1, 1, 1]);
    }
}
