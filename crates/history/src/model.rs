//! The nouns of the service.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

/// The name of a conversation, checked: 1 to 64 of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(String);

/// Postgres' number of a conversation: what its rows are kept under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationNo(i64);

/// One of 16 parts of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(i16);

/// How many parts the outbox has; the schema knows it, too.
const SHARDS: i64 = 16;

/// The name of a user, checked: 1 to 64 of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

impl ConversationId {
    /// Takes a text that was checked before, by the contract's rules or by an earlier instance of this service.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConversationNo {
    /// Takes a number that Postgres gave.
    pub fn new(no: i64) -> Self {
        Self(no)
    }

    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The part of the outbox that its messages are relayed with.
    pub fn shard(self) -> Shard {
        Shard(i16::try_from(self.0.rem_euclid(SHARDS)).unwrap_or_default())
    }
}

impl Shard {
    /// Takes a number that Postgres, or another instance, gave; `None` if it is none.
    pub fn new(number: i16) -> Option<Self> {
        (0..SHARDS).contains(&number.into()).then_some(Self(number))
    }

    /// As a number.
    pub fn get(self) -> i16 {
        self.0
    }
}

impl UserId {
    /// Takes a text that was checked before.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who may take part in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everybody.
    Open,
}

/// A conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its name.
    pub id: ConversationId,
    /// Who may take part.
    pub kind: Kind,
    /// What to show.
    pub title: String,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
    /// The number of its newest message, 0 before the first.
    pub last_seq: i64,
    /// 1 after creation, one more with each change of title or attributes.
    pub version: i64,
    /// When created.
    pub create_time: SystemTime,
    /// When changed last.
    pub update_time: SystemTime,
}

/// A conversation to be created.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// The id, given or made.
    pub id: ConversationId,
    /// The name of this creation, if it has one.
    pub request_id: Option<String>,
    /// A hash of what the caller asked for: equal for a repeat, different for anything else.
    pub fingerprint: [u8; 32],
    /// Who may take part.
    pub kind: Kind,
    /// What to show.
    pub title: String,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Text.
    Text(String),
    /// Bytes and their media type.
    Binary {
        /// The bytes.
        data: Bytes,
        /// Their media type.
        content_type: String,
    },
}

/// Whether a message still says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As sent or edited last.
    Active,
    /// Withdrawn.
    Recalled,
}

/// A message to be appended.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Where to.
    pub conversation: ConversationId,
    /// Who sends it.
    pub sender: UserId,
    /// The sender's own name for it: with conversation and sender, its key.
    pub client_message_id: String,
    /// A hash of what the caller asked for: equal for a repeat, different for anything else.
    pub fingerprint: [u8; 32],
    /// What it says.
    pub body: Body,
    /// The message it answers, 0: none.
    pub reply_to_seq: i64,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
}

/// A message as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// Its number, from 1 without gaps in order of commit; below 2^53.
    pub seq: i64,
    /// Unique among all messages.
    pub id: Uuid,
    /// Who sent it.
    pub sender: UserId,
    /// The sender's own name for it.
    pub client_message_id: String,
    /// What it says.
    pub body: Body,
    /// The message it answers, 0: none.
    pub reply_to_seq: i64,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
    /// Whether it still says something.
    pub state: State,
    /// 1 as sent, one more with each edit.
    pub edit_version: i32,
    /// The number of its last edit among those of the conversation.
    pub change_seq: i64,
    /// When committed; never less than that of the message before.
    pub create_time: SystemTime,
}

/// What became of one append.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every outcome is the large one")]
pub enum Appended {
    /// It has a number.
    Done {
        /// The message as it is now.
        message: Message,
        /// With what it is relayed.
        shard: Shard,
        /// Whether an earlier append of the same key had done it.
        deduplicated: bool,
    },
    /// There is no such conversation.
    NoConversation,
    /// The key belongs to a message of another content.
    KeyReused {
        /// Its number.
        seq: i64,
    },
    /// The message to be answered is not there.
    NoReplyTarget {
        /// The newest message that is.
        last_seq: i64,
    },
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It ends with the newest message.
    Newest,
    /// It ends right before this number.
    Before(i64),
    /// It begins right after this number.
    After(i64),
    /// It lies on both sides of this number.
    Around(i64),
}

/// How large a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Messages, at most 200.
    pub messages: usize,
    /// Their bytes, as the contract encodes them.
    pub bytes: usize,
}

/// A page of a conversation.
#[derive(Clone, Debug)]
pub struct Page {
    /// In ascending order, without a hole.
    pub messages: Vec<Message>,
    /// The newest number known to whoever answered.
    pub last_seq: i64,
    /// Who answered.
    pub source: Source,
    /// Whether it came from the cache while Postgres did not answer.
    pub stale: bool,
}

/// The layer that answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The tail.
    Redis,
    /// The truth.
    Postgres,
}

/// A place in the messages of one user, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthoredCursor {
    /// `create_time` of the last message of the page before, in microseconds since 1970.
    pub micros: i64,
    /// Its conversation.
    pub conversation: ConversationNo,
    /// Its number.
    pub seq: i64,
}
