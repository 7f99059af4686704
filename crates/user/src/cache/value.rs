//! Encoding of a cached profile: kind, version, time read, then the contract's message.
//!
//! Kind and version come first, in fixed sizes, because the scripts read them. The message is
//! stored as it is sent to callers and is not decoded here. A value that cannot be parsed as this
//! user, for example one of a newer release, counts as missing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tidings_redis::millis;

use crate::model::{UserId, UserRecord};
use crate::wire;

/// Bytes before the message: kind (1), version (8, big endian), time read in ms since 1970 (8, big
/// endian).
const HEADER: usize = 17;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

/// A record as a cache holds it.
#[derive(Clone, Debug)]
pub struct CachedRecord {
    /// The user, or its absence.
    pub record: UserRecord,
    /// Time at which an instance read it from Postgres or committed it, by that instance's clock.
    pub read_at: SystemTime,
}

impl CachedRecord {
    /// Time since it was read. Subject to the clock skew between two instances.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.read_at).unwrap_or_default()
    }
}

pub(super) fn encode(record: &UserRecord, read_at: SystemTime) -> Vec<u8> {
    let since = read_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let body = match record {
        UserRecord::Present(user) => &*user.bytes,
        UserRecord::Absent { .. } => &[],
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.push(match record {
        UserRecord::Present(_) => PRESENT,
        UserRecord::Absent { .. } => ABSENT,
    });
    bytes.extend(record.version().to_be_bytes());
    bytes.extend(millis(since).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn decode(id: &UserId, bytes: Vec<u8>) -> Option<CachedRecord> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let version = i64::from_be_bytes(header[1..9].try_into().ok()?);
    let millis = u64::from_be_bytes(header[9..].try_into().ok()?);
    let read_at = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    let record = match header[0] {
        PRESENT => UserRecord::Present(wire::parse(id, version, Bytes::from(bytes).slice(HEADER..))?),
        ABSENT => UserRecord::Absent { version },
        _ => return None,
    };
    Some(CachedRecord { record, read_at })
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
        fn a_stored_record_decodes_to_itself(version in 1..1_i64 << 53, bio in ".*", age in proptest::option::of(0..=150_i16)) {
            let record = UserRecord::Present(wire::encoded(user(version, bio, age)));
            let cached = decode(&UserId::new("ada".to_owned()), encode(&record, SystemTime::now()));
            prop_assert_eq!(cached.map(|cached| cached.record), Some(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&UserId::new("ada".to_owned()), bytes);
        }
    }

    #[test]
    fn a_value_under_the_key_of_another_user_is_a_miss() {
        let bytes = encode(&UserRecord::Present(wire::encoded(user(1, String::new(), None))), SystemTime::now());

        assert!(decode(&UserId::new("bob".to_owned()), bytes).is_none());
    }
}
