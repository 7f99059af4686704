//! The bytes of a cached profile: kind, version and time read, then the contract's message.
//!
//! Kind and version stand first and have fixed sizes, because the scripts read them. The message is neither taken apart nor put
//! together: what is cached is what callers are told. What is not a user, such as a value of a newer release, counts as not
//! there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::model::{Record, UserId};
use crate::wire;

/// kind (1), version (8, big endian), time read in ms since 1970 (8, big endian)
const HEADER: usize = 17;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

/// A record with the time at which it was read from Postgres, or committed there.
#[derive(Clone, Debug)]
pub struct Cached {
    /// What is known.
    pub record: Record,
    /// When it was read, by the clock of the instance that did.
    pub read: SystemTime,
}

impl Cached {
    /// How long ago it was read, by the clocks of two instances.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.read).unwrap_or_default()
    }
}

pub(super) fn encode(record: &Record, read: SystemTime) -> Vec<u8> {
    let since = read.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let body = match record {
        Record::Present(user) => &*user.bytes,
        Record::Absent { .. } => &[],
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.push(match record {
        Record::Present(_) => PRESENT,
        Record::Absent { .. } => ABSENT,
    });
    bytes.extend(record.version().to_be_bytes());
    bytes.extend(millis.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn decode(id: &UserId, bytes: Vec<u8>) -> Option<Cached> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let version = i64::from_be_bytes(header[1..9].try_into().ok()?);
    let millis = u64::from_be_bytes(header[9..].try_into().ok()?);
    let read = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    let record = match header[0] {
        PRESENT => Record::Present(wire::parse(id, version, Bytes::from(bytes).slice(HEADER..))?),
        ABSENT => Record::Absent { version },
        _ => return None,
    };
    Some(Cached { record, read })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Profile, User};

    fn user(version: i64, bio: String, age: Option<i16>) -> User {
        User {
            id: UserId::new("ada".to_owned()),
            profile: Profile { age, bio, ..Profile::default() },
            version,
            create_time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            update_time: UNIX_EPOCH + Duration::from_micros(1_800_000_000_654_321),
        }
    }

    proptest! {
        #[test]
        fn what_was_stored_is_what_is_read(version in 1..1_i64 << 53, bio in ".*", age in proptest::option::of(0..=150_i16)) {
            let record = Record::Present(wire::encoded(user(version, bio, age)));
            let cached = decode(&UserId::new("ada".to_owned()), encode(&record, SystemTime::now()));
            prop_assert_eq!(cached.map(|cached| cached.record), Some(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&UserId::new("ada".to_owned()), bytes);
        }
    }

    #[test]
    fn a_value_under_the_key_of_another_user_counts_as_not_there() {
        let bytes = encode(&Record::Present(wire::encoded(user(1, String::new(), None))), SystemTime::now());

        assert!(decode(&UserId::new("bob".to_owned()), bytes).is_none());
    }
}
