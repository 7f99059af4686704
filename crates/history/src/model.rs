//! The domain types of the service.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

/// A valid conversation id: 1 to 64 characters of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(String);

/// The number that Postgres assigned to a conversation: the key of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationNo(i64);

/// One of the 16 shards of the outbox, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(i16);

/// Number of shards. The schema contains the same number.
const SHARDS: i64 = 16;

/// A valid user id: 1 to 64 characters of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

impl ConversationId {
    /// Wraps an id that was validated before: in a request, or by the instance that stored it.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConversationNo {
    /// Wraps a number that Postgres assigned.
    pub fn new(no: i64) -> Self {
        Self(no)
    }

    /// Returns the number as Postgres stores it.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Returns the shard of the outbox that relays the messages of this conversation.
    pub fn shard(self) -> Shard {
        Shard(i16::try_from(self.0.rem_euclid(SHARDS)).unwrap_or_default())
    }
}

impl Shard {
    /// Wraps a number received from Postgres or another instance; `None` unless it is 0 to 15.
    pub fn new(number: i16) -> Option<Self> {
        (0..SHARDS).contains(&number.into()).then_some(Self(number))
    }

    /// Returns the number of the shard, 0 to 15.
    pub fn get(self) -> i16 {
        self.0
    }
}

impl UserId {
    /// Wraps an id that was validated before.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Returns the id as text.
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

/// Access to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationKind {
    /// Every user may read and append.
    Open,
}

/// A conversation without its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Unique among all conversations.
    pub id: ConversationId,
    /// Access to the conversation.
    pub kind: ConversationKind,
    /// Display name, at most 256 bytes.
    pub title: String,
    /// Free attributes of the caller, at most 32 with 4,096 bytes together.
    pub attributes: BTreeMap<String, String>,
    /// Seq of the newest message; 0 if there is none.
    pub last_seq: i64,
    /// 1 after creation, incremented by each change of title or attributes.
    pub version: i64,
    /// Time of the creation.
    pub create_time: SystemTime,
    /// Time of the last change of title or attributes.
    pub update_time: SystemTime,
}

/// A validated request to create a conversation.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Chosen by the caller, or generated.
    pub id: ConversationId,
    /// Idempotency key of the creation, if the caller sent one.
    pub request_id: Option<String>,
    /// SHA-256 of the request: equal for a retry, different for any other request.
    pub fingerprint: [u8; 32],
    /// Access to the conversation.
    pub kind: ConversationKind,
    /// Display name, at most 256 bytes.
    pub title: String,
    /// Free attributes of the caller, at most 32 with 4,096 bytes together.
    pub attributes: BTreeMap<String, String>,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// UTF-8 text, at most 32 KiB.
    Text(String),
    /// Bytes with their media type.
    Binary {
        /// At most 32 KiB.
        data: Bytes,
        /// Media type of `data`, such as `image/png`.
        content_type: String,
    },
}

impl Body {
    /// Returns the size of the content in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary { data, .. } => data.len(),
        }
    }
}

/// State of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// The message has its content, as sent or as last edited.
    Active,
    /// The sender withdrew the message.
    Recalled,
}

/// A validated request to append a message.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// Conversation to append to.
    pub conversation: ConversationId,
    /// User that sends the message.
    pub sender: UserId,
    /// Idempotency key, unique for the sender in the conversation.
    pub client_message_id: String,
    /// SHA-256 of the request: equal for a retry, different for any other request.
    pub fingerprint: [u8; 32],
    /// Content of the message.
    pub body: Body,
    /// Seq of the message that this one replies to; 0 if none.
    pub reply_to_seq: i64,
    /// Free attributes of the caller, at most 32 with 4,096 bytes together.
    pub attributes: BTreeMap<String, String>,
}

/// A stored message in its current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Conversation that contains the message.
    pub conversation: ConversationId,
    /// Sequence number in the conversation: from 1, without gaps, in order of commit, below 2^53.
    pub seq: i64,
    /// UUID version 7, unique among all messages.
    pub id: Uuid,
    /// User that sent the message.
    pub sender: UserId,
    /// Idempotency key, unique for the sender in the conversation.
    pub client_message_id: String,
    /// Content of the message.
    pub body: Body,
    /// Seq of the message that this one replies to; 0 if none.
    pub reply_to_seq: i64,
    /// Free attributes of the caller, at most 32 with 4,096 bytes together.
    pub attributes: BTreeMap<String, String>,
    /// Active or recalled.
    pub state: MessageState,
    /// 1 as sent, incremented by each edit.
    pub edit_version: i32,
    /// Sequence number of its last edit or recall among those of the conversation; 0 if none.
    pub change_seq: i64,
    /// Time of the commit; never before that of the preceding message.
    pub create_time: SystemTime,
}

/// Outcome of one append.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every outcome is the large one")]
pub enum AppendOutcome {
    /// The message is stored.
    Done {
        /// The message in its current version.
        message: Message,
        /// Shard of the outbox that relays the message.
        shard: Shard,
        /// True if an earlier append with the same key stored the message.
        deduplicated: bool,
    },
    /// The conversation does not exist.
    NoConversation,
    /// The idempotency key belongs to a message with different content.
    KeyReused {
        /// Seq of that message.
        seq: i64,
    },
    /// The message to reply to does not exist yet.
    NoReplyTarget {
        /// Seq of the newest message.
        last_seq: i64,
    },
}

/// Position of a page in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The page ends with the newest message.
    Newest,
    /// The page ends right before this seq.
    Before(i64),
    /// The page begins right after this seq.
    After(i64),
    /// The page contains messages on both sides of this seq.
    Around(i64),
}

/// Limits of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Maximum number of messages, at most 200.
    pub messages: usize,
    /// Maximum size of the messages in bytes, encoded as protobuf. A single larger message is still
    /// returned.
    pub bytes: usize,
}

/// Consecutive messages of a conversation, as one layer knows it.
#[derive(Clone, Debug)]
pub struct MessageSlice {
    /// Messages in ascending order of seq, without a gap.
    pub messages: Vec<Message>,
    /// Newest seq of the conversation that the layer knows.
    pub last_seq: i64,
}

/// A page of a conversation.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// Messages in ascending order of seq, without a gap.
    pub messages: Vec<Message>,
    /// Newest seq of the conversation that the answering layer knows.
    pub last_seq: i64,
    /// The layer that answered.
    pub source: ReadSource,
    /// True if the page came from the tail while Postgres did not answer.
    pub stale: bool,
}

/// The layer that answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadSource {
    /// The tail, which may lack the newest commits.
    Redis,
    /// The source of truth.
    Postgres,
}

/// A position in the messages of one user, newest first: the last message of the previous page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthoredCursor {
    /// `create_time` of that message, in microseconds since 1970.
    pub micros: i64,
    /// Conversation of that message.
    pub conversation: ConversationNo,
    /// Seq of that message.
    pub seq: i64,
}
