//! The tail cache in Redis: the newest messages of active conversations.
//!
//! `t:{id}` is a list of at most 200 messages and 512 KiB. Each element carries its own seq, so the
//! first and the last element say which range is cached, and `last - first + 1 == LLEN` proves that
//! the range has no gap. `z:{id}` is the lease of the one reader that may load the tail. Losing
//! either key at any time costs one read of Postgres and nothing else.
//!
//! Every script is idempotent and safe to run late, so a write with unknown outcome does no harm:
//! a lease expires, a load requires its lease, and the relay appends the messages that are
//! missing.
//!
//! The keys contain the conversation's id, not its number in Postgres, so that a page can be read
//! without asking Postgres first.

mod element;
mod outcomes;

use std::fmt;
use std::time::Duration;

use tidings_redis::{Call, Lane, Permissions, Redis, Script, Value, jittered_ttl, millis};

pub use outcomes::LoadOutcome;
pub use tidings_redis::Error;

use self::outcomes::{ConfirmOutcome, LoadLeaseOutcome, TailAppendOutcome};
use crate::model::{Anchor, ConversationId, Message, MessageSlice, Shard};

/// Maximum number of messages in a tail: four pages of the default size.
pub const TAIL_MESSAGES: usize = 200;
/// Maximum size of the messages in a tail, in bytes.
const TAIL_BYTES: usize = 512 * 1024;
/// Maximum size of one cached message, in bytes; pages with a longer one are read from Postgres.
const ELEMENT_BYTES: usize = 16 * 1024;
/// Size of an ordinary message, for the wait for a page.
const MESSAGE_BYTES: usize = 1024;
/// Greater than every seq: seqs stay below 2^53, the limit of exact integers in Lua.
const NO_BOUND: i64 = 1 << 53;

/// Pub/sub channel of the relays. A message is the number of a shard with new outbox rows, as text.
pub const OUTBOX_CHANNEL: &str = "news";

/// Commands of the scripts and of notifications.
pub const PERMISSIONS: Permissions = Permissions {
    required: &[
        "del K",
        "exists K",
        "hget K field",
        "hset K field value",
        "lindex K 0",
        "llen K",
        "lpop K",
        "lrange K 0 1",
        "ltrim K 0 1",
        "pexpire K 1",
        "publish C message",
        "rpop K",
        "rpush K value",
        "subscribe C",
        "unsubscribe",
    ],
    optional: None,
};

/// Expiry times of the keys in Redis.
#[derive(Clone, Copy, Debug)]
pub struct TailTtls {
    /// TTL of a tail, counted from its last append or load.
    pub tail: Duration,
    /// TTL of a load lease.
    pub lease: Duration,
}

/// The tails of all conversations in one Redis.
#[derive(Clone)]
pub struct Tails {
    redis: Redis,
    ttls: TailTtls,
    append: Script,
    confirm: Script,
    lease: Script,
    load: Script,
    read: Script,
}

/// Proof of one reader that it holds the lease to load one tail.
#[derive(Clone, Copy, Debug)]
pub struct LoadToken([u8; 16]);

impl Tails {
    /// Creates the tails in one Redis.
    pub fn new(redis: Redis, ttls: TailTtls) -> Self {
        Self {
            redis,
            ttls,
            append: Script::new(include_str!("cache/append.lua")),
            confirm: Script::new(include_str!("cache/confirm.lua")),
            lease: Script::new(include_str!("cache/lease.lua")),
            load: Script::new(include_str!("cache/load.lua")),
            read: Script::new(include_str!("cache/read.lua")),
        }
    }

    /// Reads at most `limit` messages at `anchor`, from a tail that reaches `min_seq`. One round
    /// trip.
    ///
    /// Returns `None` if the tail is absent, has a gap, ends before `min_seq` or does not cover
    /// `anchor`.
    pub async fn read(
        &self,
        id: &ConversationId,
        anchor: Anchor,
        limit: usize,
        min_seq: i64,
    ) -> Result<Option<MessageSlice>, Error> {
        let (direction, bound) = match anchor {
            Anchor::Newest => ("back", NO_BOUND),
            Anchor::Before(seq) => ("back", seq),
            Anchor::After(seq) => ("forth", seq),
            Anchor::Around(_) => return Ok(None),
        };
        let mut lane = self.redis.reader().await?;
        lane.expect_bytes(limit * MESSAGE_BYTES);
        let mut call = self.read.key(tail_key(&lane, id));
        call.arg(direction).arg(bound).arg(limit).arg(min_seq);
        let reply: Vec<Value> = lane.read(&call).await?;
        Ok(decode_slice(id, reply))
    }

    /// Appends committed messages with consecutive seqs to the tail of their conversation, and
    /// wakes the relay of the shard `wake`. One round trip. Idempotent, and safe in any order.
    pub async fn append(&self, id: &ConversationId, messages: &[Message], wake: Option<Shard>) -> Result<(), Error> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return Ok(());
        };
        let mut lane = self.redis.writer(id.as_str()).await?;
        let mut call = self.append.key(tail_key(&lane, id));
        call.key(lease_key(&lane, id)).arg(self.tail_ttl());
        call.arg(TAIL_MESSAGES).arg(TAIL_BYTES).arg(ELEMENT_BYTES).arg(first.seq).arg(last.seq).arg(lane.incarnation());
        match wake {
            Some(shard) => call.arg(lane.channel(format_args!("{OUTBOX_CHANNEL}"))).arg(shard.get()),
            None => call.arg("").arg(0),
        };
        let bodies: Vec<Vec<u8>> = messages.iter().map(element::body).collect();
        // A message that is too long makes the script drop the tail: no message needs to be sent
        // then.
        if bodies.iter().all(|body| body.len() <= ELEMENT_BYTES) {
            for (message, body) in messages.iter().zip(bodies) {
                call.arg(message.edit_version).arg(body);
            }
        }
        match lane.write(&call).await.assume_idempotent()? {
            TailAppendOutcome::OtherIncarnation => Err(lane.mark_stale()),
            TailAppendOutcome::UpToDate | TailAppendOutcome::NoTail | TailAppendOutcome::Dropped => Ok(()),
        }
    }

    /// Returns true for each conversation and seq whose tail needs no repair: it has the message,
    /// begins after it, or is absent. Also raises the floor of a load in flight. One round trip.
    pub async fn confirm(&self, seqs: &[(ConversationId, i64)]) -> Result<Vec<bool>, Error> {
        let mut lane = self.redis.reader().await?;
        let calls: Vec<Call<'_>> = seqs
            .iter()
            .map(|(id, seq)| {
                let mut call = self.confirm.key(tail_key(&lane, id));
                call.key(lease_key(&lane, id)).arg(*seq).arg(lane.incarnation());
                call
            })
            .collect();
        let outcomes: Vec<ConfirmOutcome> = lane.write_all(&calls).await.assume_idempotent()?;
        if outcomes.contains(&ConfirmOutcome::OtherIncarnation) {
            return Err(lane.mark_stale());
        }
        Ok(outcomes.into_iter().map(|outcome| outcome == ConfirmOutcome::Confirmed).collect())
    }

    /// Acquires the lease to load a tail; `None` if another reader holds it. One round trip.
    pub async fn lease(&self, id: &ConversationId) -> Result<Option<LoadToken>, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let token = LoadToken(rand::random());
        let mut call = self.lease.key(lease_key(&lane, id));
        call.arg(&token.0[..]).arg(millis(self.ttls.lease));
        match lane.write(&call).await.assume_idempotent()? {
            LoadLeaseOutcome::Granted => Ok(Some(token)),
            LoadLeaseOutcome::Taken => Ok(None),
        }
    }

    /// Stores a tail, built from the newest messages of a conversation, which end with `last_seq`.
    /// One round trip.
    ///
    /// Keeps only the newest messages that fit the limits of a tail. A loader that is behind keeps
    /// its lease if it `will_retry`; otherwise the lease is released.
    pub async fn load(
        &self,
        id: &ConversationId,
        token: LoadToken,
        messages: &[Message],
        last_seq: i64,
        will_retry: bool,
    ) -> Result<LoadOutcome, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let elements = newest_that_fit(messages);
        let first = last_seq - i64::try_from(elements.len()).unwrap_or_default() + 1;
        let lease = if will_retry { self.ttls.lease } else { Duration::ZERO };
        let mut call = self.load.key(tail_key(&lane, id));
        call.key(lease_key(&lane, id)).arg(&token.0[..]).arg(millis(lease)).arg(self.tail_ttl()).arg(first);
        for (edit_version, body) in elements {
            call.arg(edit_version).arg(body);
        }
        lane.write(&call).await.assume_idempotent()
    }

    /// TTL of a tail with jitter, in milliseconds.
    fn tail_ttl(&self) -> u64 {
        jittered_ttl(self.ttls.tail, rand::random())
    }
}

impl fmt::Debug for Tails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tails").field("redis", &self.redis).field("ttls", &self.ttls).finish_non_exhaustive()
    }
}

/// Edit version and encoded body of the newest messages that fit the limits of a tail, in ascending
/// order.
fn newest_that_fit(messages: &[Message]) -> Vec<(i32, Vec<u8>)> {
    let mut total = 0;
    let mut newest: Vec<_> = messages
        .iter()
        .rev()
        .take(TAIL_MESSAGES)
        .map(|message| (message.edit_version, element::body(message)))
        .take_while(|(_, body)| {
            total += body.len();
            body.len() <= ELEMENT_BYTES && total <= TAIL_BYTES
        })
        .collect();
    newest.reverse();
    newest
}

/// Decodes the reply of the `read` script.
///
/// Returns `None` if the tail does not have the page, or has another format, perhaps that of a
/// newer release.
fn decode_slice(id: &ConversationId, reply: Vec<Value>) -> Option<MessageSlice> {
    let mut values = reply.into_iter();
    let Some(Value::Int(last_seq)) = values.next() else {
        return None;
    };
    let messages: Vec<Message> = values
        .map(|value| match value {
            Value::BulkString(bytes) => element::decode(id, &bytes),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let contiguous = messages.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
    contiguous.then_some(MessageSlice { messages, last_seq })
}

fn tail_key(lane: &Lane, id: &ConversationId) -> String {
    lane.key(format_args!("t:{{{id}}}"))
}

fn lease_key(lane: &Lane, id: &ConversationId) -> String {
    lane.key(format_args!("z:{{{id}}}"))
}
