//! The nouns of the service.

mod handle;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use handle::{HANDLE_CHARS_MAX, HandleKey, compose};

/// The name of a user, checked: 1 to 64 of `[A-Za-z0-9._~-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

impl UserId {
    /// Takes a text that was checked before, by the contract's rules or by an earlier instance of this service.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people and programs say about a user: all that can be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Unique whatever its case; empty: none.
    pub handle: String,
    /// The name to show.
    pub display_name: String,
    /// In years.
    pub age: Option<i16>,
    /// Where a picture is.
    pub avatar_uri: String,
    /// A text about the user.
    pub bio: String,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
}

/// A user at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// What is said about them.
    pub profile: Profile,
    /// 1 after creation, one more with each change; below 2^53.
    pub version: i64,
    /// When created.
    pub create_time: SystemTime,
    /// When changed last.
    pub update_time: SystemTime,
}

/// A user at one version, encoded as callers are told of it: reads hand it on as it is, from Postgres into the cache and from
/// there to the caller. See `wire::encoded`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedUser {
    /// The version of the user.
    pub version: i64,
    /// All of the user.
    pub bytes: Bytes,
}

/// What Postgres, or a cache of it, knows under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A user.
    Present(EncodedUser),
    /// No user: never created (version 0), or deleted (the version of the deletion).
    Absent {
        /// What a later write will exceed.
        version: i64,
    },
}

impl Record {
    /// The version, by which records of one id are compared.
    pub fn version(&self) -> i64 {
        match self {
            Self::Present(user) => user.version,
            Self::Absent { version } => *version,
        }
    }

    /// The version of a user whose record this is.
    pub fn version_of(&self, id: &UserId) -> UserVersion {
        UserVersion { id: id.clone(), version: self.version(), absent: matches!(self, Self::Absent { .. }) }
    }
}

/// A version that a user came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserVersion {
    /// Who.
    pub id: UserId,
    /// Which; 0: there never was such a user.
    pub version: i64,
    /// Whether there is no such user, or none any more.
    pub absent: bool,
}

/// What a stream of versions is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Versions that it was not told before, each of another user.
    Versions(Vec<UserVersion>),
    /// The first versions of all its users were told.
    CaughtUp,
    /// There is nothing else to say.
    Heartbeat {
        /// Whether changes may come late at the moment.
        degraded: bool,
    },
    /// The stream ends.
    Goodbye {
        /// When to come back.
        retry_after: Duration,
    },
}

/// A user to be created.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The id, given or made.
    pub id: UserId,
    /// The name of this creation, if it has one.
    pub request_id: Option<String>,
    /// A hash of what the caller asked for: equal for a repeat, different for anything else.
    pub fingerprint: [u8; 32],
    /// What is said about them.
    pub profile: Profile,
}

/// A change to a user: `profile` holds new values for the fields that are named, and nothing of meaning elsewhere.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whom to change.
    pub id: UserId,
    /// Only at this version.
    pub expected_version: Option<i64>,
    /// Which fields.
    pub fields: FieldSet,
    /// Their new values.
    pub profile: Profile,
}

/// The fields of a profile that a change names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one per field of a profile, as a mask has them")]
pub struct FieldSet {
    /// `handle`
    pub handle: bool,
    /// `display_name`
    pub display_name: bool,
    /// `age`
    pub age: bool,
    /// `avatar_uri`
    pub avatar_uri: bool,
    /// `bio`
    pub bio: bool,
    /// `attributes`
    pub attributes: bool,
}

/// Which users a list has, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All of them, by id.
    ById,
    /// Those whose handles begin so, by handle.
    ByHandle(HandleKey),
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The users.
    pub users: Vec<User>,
    /// Whether there are more.
    pub more: bool,
}

/// A record with where it came from.
#[derive(Clone, Debug)]
pub struct Read {
    /// What is known.
    pub record: Record,
    /// Who said so.
    pub source: Source,
    /// How long ago it was read from Postgres.
    pub age: Duration,
    /// Whether it came from a cache while Postgres did not answer.
    pub stale: bool,
}

/// The layer that answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The memory of this instance.
    Near,
    /// The cache.
    Redis,
    /// The truth.
    Postgres,
}
