//! Redis: the tails, the newest messages of active conversations.
//!
//! `t:{id}` is a list of at most 200 messages and 512 KiB. Each element says its own number, so first and last element
//! say what is covered, and `last - first + 1 == LLEN` proves it whole. `z:{id}` is the lease of the one reader that may
//! load it. Losing either at any time costs a read of Postgres and nothing else.
//!
//! Every script is safe to run twice and late, so it makes no difference whether a write that got no answer was done: a lease
//! runs out, a load needs its lease, and what could not be appended the relay brings.
//!
//! The keys carry the conversation's id, not its number, so that a page can be read without asking Postgres first.

mod element;

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use tidings_redis::{Call, Lane, Redis, Script, Value};

pub use tidings_redis::Error;

use crate::model::{Anchor, ConversationId, Message, Shard};

/// How much the life of a tail is shortened or lengthened at random, in percent.
const JITTER_PERCENT: u64 = 15;
/// The most messages of a tail: four pages of the usual size.
pub const TAIL_MESSAGES: usize = 200;
/// The most bytes of a tail.
const TAIL_BYTES: usize = 512 * 1024;
/// The longest message a tail keeps; conversations of longer ones are read from Postgres.
const ELEMENT_BYTES: usize = 16 * 1024;
/// What scripts answer that met another reign than that of their keys.
const OTHER_REIGN: u8 = 3;
/// Above every number: numbers stay below 2^53, which scripts can still count in.
const NO_BOUND: i64 = 1 << 53;

/// The pub/sub channel on which it is said which shard of the outbox has news: a number as text.
pub const NEWS: &str = "news";

/// How long things stay in Redis.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A tail, after its last message.
    pub tail: Duration,
    /// The right to load.
    pub lease: Duration,
}

/// The tails.
#[derive(Clone)]
pub struct Tails {
    redis: Redis,
    lives: Lives,
    append: Script,
    settle: Script,
    lease: Script,
    load: Script,
    read: Script,
}

/// The right of one reader to load one tail.
#[derive(Clone, Copy, Debug)]
pub struct Token([u8; 16]);

/// A slice of a tail.
#[derive(Clone, Debug)]
pub struct Slice {
    /// In ascending order, without a hole.
    pub messages: Vec<Message>,
    /// The newest number the tail knows.
    pub last_seq: i64,
}

/// What became of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The tail is there.
    Done,
    /// The lease had expired, or been evicted.
    LeaseGone,
    /// Messages up to this number were committed meanwhile.
    Behind {
        /// Fetch up to here and try again.
        floor: i64,
    },
}

impl Tails {
    /// The tails in one Redis.
    pub fn new(redis: Redis, lives: Lives) -> Self {
        Self {
            redis,
            lives,
            append: Script::new(include_str!("cache/append.lua")),
            settle: Script::new(include_str!("cache/settle.lua")),
            lease: Script::new(include_str!("cache/lease.lua")),
            load: Script::new(include_str!("cache/load.lua")),
            read: Script::new(include_str!("cache/read.lua")),
        }
    }

    /// A slice of at most `limit` messages at `anchor`, from a tail that reaches `min_seq`; `None` if the tail can not
    /// say. One round trip.
    pub async fn read(
        &self,
        id: &ConversationId,
        anchor: Anchor,
        limit: usize,
        min_seq: i64,
    ) -> Result<Option<Slice>, Error> {
        let (direction, bound) = match anchor {
            Anchor::Newest => ("back", NO_BOUND),
            Anchor::Before(seq) => ("back", seq),
            Anchor::After(seq) => ("forth", seq),
            Anchor::Around(_) => return Ok(None),
        };
        let mut lane = self.redis.reader().await?;
        let mut call = self.read.key(tail_key(&lane, id));
        call.arg(direction).arg(bound).arg(limit).arg(min_seq);
        let answer: Vec<Value> = lane.read(&call).await?;
        Ok(slice(id, answer))
    }

    /// Makes committed messages known, which follow each other in one conversation, and wakes whoever relays this shard.
    /// One round trip. Safe to repeat, and safe in any order.
    pub async fn append(&self, id: &ConversationId, messages: &[Message], wake: Option<Shard>) -> Result<(), Error> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return Ok(());
        };
        let mut lane = self.redis.writer(id.as_str()).await?;
        let mut call = self.append.key(tail_key(&lane, id));
        call.key(lease_key(&lane, id)).arg(self.life());
        call.arg(TAIL_MESSAGES).arg(TAIL_BYTES).arg(ELEMENT_BYTES).arg(first.seq).arg(last.seq).arg(&**lane.reign());
        match wake {
            Some(shard) => call.arg(lane.channel(format_args!("{NEWS}"))).arg(shard.get()),
            None => call.arg("").arg(0),
        };
        let bodies: Vec<Vec<u8>> = messages.iter().map(element::body).collect();
        // One that is too long to be kept drops the tail: then none need travel.
        if bodies.iter().all(|body| body.len() <= ELEMENT_BYTES) {
            for (message, body) in messages.iter().zip(bodies) {
                call.arg(message.edit_version).arg(body);
            }
        }
        match lane.write(&call).await.or_again()? {
            OTHER_REIGN => Err(lane.outlived()),
            _ => Ok(()),
        }
    }

    /// For each conversation, whether its tail reaches the number, or there is no tail. One round trip.
    pub async fn reach(&self, lasts: &[(ConversationId, i64)]) -> Result<Vec<bool>, Error> {
        let mut lane = self.redis.reader().await?;
        let calls: Vec<Call<'_>> = lasts
            .iter()
            .map(|(id, last)| {
                let mut call = self.settle.key(tail_key(&lane, id));
                call.key(lease_key(&lane, id)).arg(*last).arg(&**lane.reign());
                call
            })
            .collect();
        let outcomes: Vec<u8> = lane.write_all(&calls).await.or_again()?;
        if outcomes.contains(&OTHER_REIGN) {
            return Err(lane.outlived());
        }
        Ok(outcomes.into_iter().map(|outcome| outcome == 1).collect())
    }

    /// Asks for the right to load a tail; `None` if another reader has it. One round trip.
    pub async fn lease(&self, id: &ConversationId) -> Result<Option<Token>, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let token = Token(rand::random());
        let mut call = self.lease.key(lease_key(&lane, id));
        call.arg(&token.0[..]).arg(millis(self.lives.lease));
        let granted: bool = lane.write(&call).await.or_again()?;
        Ok(granted.then_some(token))
    }

    /// Loads a tail from the newest messages of a conversation, which end with `last_seq`. One round trip.
    ///
    /// Of messages that are too many or too long, the newest are kept. A loader that is behind keeps its lease if it will
    /// come `again`, and else gives it back.
    pub async fn load(
        &self,
        id: &ConversationId,
        token: Token,
        messages: &[Message],
        last_seq: i64,
        again: bool,
    ) -> Result<Loaded, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let kept = kept(messages);
        let first = last_seq - i64::try_from(kept.len()).unwrap_or_default() + 1;
        let lease = if again { self.lives.lease } else { Duration::ZERO };
        let mut call = self.load.key(tail_key(&lane, id));
        call.key(lease_key(&lane, id)).arg(&token.0[..]).arg(millis(lease)).arg(self.life()).arg(first);
        for (edit_version, body) in kept {
            call.arg(edit_version).arg(body);
        }
        let outcome: Vec<i64> = lane.write(&call).await.or_again()?;
        Ok(match outcome[..] {
            [1] => Loaded::Done,
            [2, floor] => Loaded::Behind { floor },
            _ => Loaded::LeaseGone,
        })
    }

    /// How long a tail stays, in milliseconds.
    fn life(&self) -> u64 {
        let percent = rand::rng().random_range(100 - JITTER_PERCENT..=100 + JITTER_PERCENT);
        (millis(self.lives.tail) * percent / 100).max(1)
    }
}

impl fmt::Debug for Tails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tails").field("redis", &self.redis).field("lives", &self.lives).finish_non_exhaustive()
    }
}

/// The newest messages that fit a tail, with their edit versions, as they are stored.
fn kept(messages: &[Message]) -> Vec<(i32, Vec<u8>)> {
    let mut total = 0;
    let mut kept: Vec<_> = messages
        .iter()
        .rev()
        .take(TAIL_MESSAGES)
        .map(|message| (message.edit_version, element::body(message)))
        .take_while(|(_, body)| {
            total += body.len();
            body.len() <= ELEMENT_BYTES && total <= TAIL_BYTES
        })
        .collect();
    kept.reverse();
    kept
}

/// What the `read` script answered; a tail that is not as we write it, by a newer release perhaps, can not say anything.
fn slice(id: &ConversationId, answer: Vec<Value>) -> Option<Slice> {
    let mut values = answer.into_iter();
    let Some(Value::Int(last_seq)) = values.next() else {
        return None;
    };
    let messages: Vec<Message> = values
        .map(|value| match value {
            Value::BulkString(bytes) => element::decode(id, &bytes),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let whole = messages.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
    whole.then_some(Slice { messages, last_seq })
}

fn tail_key(lane: &Lane, id: &ConversationId) -> String {
    lane.key(format_args!("t:{{{id}}}"))
}

fn lease_key(lane: &Lane, id: &ConversationId) -> String {
    lane.key(format_args!("z:{{{id}}}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
