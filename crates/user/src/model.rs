//! Domain types of the user service.

mod handle;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tidings_server::StreamGoodbye;

pub use handle::{HANDLE_CHARS_MAX, HandleKey, compose};

/// A validated user id: 1 to 64 characters of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

impl UserId {
    /// Wraps a string that was validated before, by this release or an earlier one.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Borrows the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fields of a user that UpdateUser can change. Limits are those of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Public name, composed, unique under case folding; empty if the user has none.
    pub handle: String,
    /// Name to display, at most 256 bytes.
    pub display_name: String,
    /// Age in years, 0 to 150.
    pub age: Option<i16>,
    /// Address of a picture, at most 2,048 bytes; never fetched.
    pub avatar_uri: String,
    /// Free text about the user, at most 4,096 bytes.
    pub bio: String,
    /// Free key-value pairs: at most 32, of 4,096 bytes in total.
    pub attributes: BTreeMap<String, String>,
}

/// A user at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id; never changes.
    pub id: UserId,
    /// The fields that can be changed.
    pub profile: Profile,
    /// 1 after creation, incremented by each change; below 2^53.
    pub version: i64,
    /// Time of the creation.
    pub create_time: SystemTime,
    /// Time of the last change.
    pub update_time: SystemTime,
}

/// A user at one version, encoded as in responses. Reads pass the bytes unchanged from Postgres to
/// the cache and from there to the caller. See `wire::encoded`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedUser {
    /// Version of the user, as in `bytes`.
    pub version: i64,
    /// The contract's message `User`.
    pub bytes: Bytes,
}

/// State of an id in Postgres or in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRecord {
    /// An existing user.
    Present(EncodedUser),
    /// No user: never created (version 0), or deleted (the version of the deletion).
    Absent {
        /// Version of the deletion, or 0; a later write exceeds it.
        version: i64,
    },
}

impl UserRecord {
    /// Returns the version, by which records of one id are compared.
    pub fn version(&self) -> i64 {
        match self {
            Self::Present(user) => user.version,
            Self::Absent { version } => *version,
        }
    }

    /// Returns the version of the user `id`, given that this is its record.
    pub fn version_of(&self, id: &UserId) -> UserVersion {
        UserVersion { id: id.clone(), version: self.version(), absent: matches!(self, Self::Absent { .. }) }
    }
}

/// A version that a user has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserVersion {
    /// The user's id.
    pub id: UserId,
    /// The version; 0 if the user never existed.
    pub version: i64,
    /// True if the user does not exist, or no longer.
    pub absent: bool,
}

/// One frame of WatchUsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFrame {
    /// Versions not sent before, each of another user.
    Versions(Vec<UserVersion>),
    /// The first versions of all users were sent.
    CaughtUp,
    /// No other frame was due.
    Heartbeat {
        /// True while changes may arrive late.
        degraded: bool,
    },
    /// The stream ends.
    Goodbye(StreamGoodbye),
}

/// A user to be created.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The id, given by the caller or generated.
    pub id: UserId,
    /// Idempotency key of this creation, if the caller gave one.
    pub request_id: Option<String>,
    /// SHA-256 of the requested user: equal for a retry, different for any other request.
    pub fingerprint: [u8; 32],
    /// The fields to store.
    pub profile: Profile,
}

/// An update of a user. Only the fields named in `fields` are taken from `profile`.
#[derive(Clone, Debug)]
pub struct UserUpdate {
    /// Id of the user to change.
    pub id: UserId,
    /// Version that the user must have; `None` means any.
    pub expected_version: Option<i64>,
    /// Fields to change.
    pub fields: FieldSet,
    /// New values of these fields.
    pub profile: Profile,
}

/// Fields of a profile, as in an update mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one per field of a profile, as a mask has them")]
pub struct FieldSet {
    /// True if `handle` is in the mask.
    pub handle: bool,
    /// True if `display_name` is in the mask.
    pub display_name: bool,
    /// True if `age` is in the mask.
    pub age: bool,
    /// True if `avatar_uri` is in the mask.
    pub avatar_uri: bool,
    /// True if `bio` is in the mask.
    pub bio: bool,
    /// True if `attributes` is in the mask.
    pub attributes: bool,
}

/// A deletion of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Version of the deletion.
    pub version: i64,
    /// Time of the deletion.
    pub time: SystemTime,
}

/// Selection, order and start of the users of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All users, ordered by id.
    ById {
        /// Last user of the page before; `None` for the first page.
        after: Option<UserId>,
    },
    /// Users whose handle starts with a prefix, ordered by handle key.
    ByHandle {
        /// Prefix of their handle keys.
        prefix: HandleKey,
        /// Handle key of the last user of the page before; `None` for the first page.
        after: Option<HandleKey>,
    },
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct UserPage {
    /// The users, in the order of the list.
    pub users: Vec<User>,
    /// True if further users follow.
    pub more: bool,
}

/// Consistency that a caller requires of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// A cache may answer.
    Cached,
    /// Postgres answers; no cache is used or filled.
    Strong,
}

/// Result of a read.
#[derive(Clone, Debug)]
pub struct UserRead {
    /// The user, or its absence.
    pub record: UserRecord,
    /// The layer that answered.
    pub source: ReadSource,
    /// Time since the record was read from Postgres; zero from Postgres itself.
    pub age: Duration,
    /// True if a cache answered while Postgres was unavailable.
    pub stale: bool,
}

/// The layer that answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadSource {
    /// The local cache of this instance.
    LocalCache,
    /// The Redis cache.
    Redis,
    /// Postgres, the source of truth.
    Postgres,
}
