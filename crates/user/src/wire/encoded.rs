//! Encoded users: encoded once, when read from Postgres, then cached and sent unchanged.
//!
//! Fields unknown to this release, cached by an instance of a newer one, are passed on.

use bytes::Bytes;
use prost::Message;

use crate::model::{EncodedUser, HandleKey, User, UserId};

/// The fields that are decoded from an encoded user; their bytes are shared with it.
#[derive(Clone, PartialEq, Message)]
struct UserHeader {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    handle: Bytes,
    #[prost(int64, tag = "8")]
    version: i64,
}

/// Encodes a user as the contract's message.
pub fn encoded(user: User) -> EncodedUser {
    EncodedUser { version: user.version, bytes: super::user(user).encode_to_vec().into() }
}

/// Wraps the bytes of this user at this version; `None` if they are malformed, or of another user
/// or version.
pub fn parse(id: &UserId, version: i64, bytes: Bytes) -> Option<EncodedUser> {
    let header = UserHeader::decode(bytes.clone()).ok()?;
    (header.id == id.as_str() && header.version == version).then_some(EncodedUser { version, bytes })
}

/// Returns the key of the user's handle; `None` if it has none.
pub fn handle_key(user: &EncodedUser) -> Option<HandleKey> {
    let header = UserHeader::decode(user.bytes.clone()).ok()?;
    let handle = std::str::from_utf8(&header.handle).ok()?;
    (!handle.is_empty()).then(|| HandleKey::of(handle))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use tidings_proto::user as plain;
    use tidings_proto::user::encoded as pb;

    use super::*;
    use crate::model::Profile;

    prop_compose! {
        fn users()(
            id in "[a-z]{1,64}",
            handle in ".{0,32}",
            bio in ".*",
            age in proptest::option::of(0..=150_i16),
            attributes in btree_map("[a-z]{1,9}", ".{0,9}", 0..5),
            version in 1..1_i64 << 53,
        ) -> User {
            let profile = Profile { handle, age, bio, attributes, ..Profile::default() };
            let create_time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
            User { id: UserId::new(id), profile, version, create_time, update_time: create_time }
        }
    }

    proptest! {
        #[test]
        fn responses_with_an_encoded_user_have_the_contracts_bytes(user in users()) {
            let bytes = encoded(user.clone()).bytes;
            let whole = plain::User::decode(bytes.clone()).unwrap();
            prop_assert_eq!(whole.encode_to_vec(), super::super::user(user).encode_to_vec());

            let ours = pb::GetUserResponse { user: bytes.clone(), read_info: None };
            let theirs = plain::GetUserResponse { user: Some(whole.clone()), read_info: None };
            prop_assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());

            let ours = pb::GetUserByHandleResponse { user: bytes.clone(), read_info: None };
            let theirs = plain::GetUserByHandleResponse { user: Some(whole.clone()), read_info: None };
            prop_assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());

            let ours = pb::BatchGetUsersResult { user: bytes, ..pb::BatchGetUsersResult::default() };
            let theirs = plain::BatchGetUsersResult { user: Some(whole), ..plain::BatchGetUsersResult::default() };
            prop_assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
        }

        #[test]
        fn the_header_has_the_id_version_and_handle(user in users()) {
            let whole = encoded(user.clone());
            let User { id, version, profile, .. } = user;
            prop_assert_eq!(parse(&id, version, whole.bytes.clone()), Some(whole.clone()));
            prop_assert_eq!(parse(&UserId::new("Other".to_owned()), version, whole.bytes.clone()), None);
            prop_assert_eq!(parse(&id, version + 1, whole.bytes.clone()), None);
            let handle = (!profile.handle.is_empty()).then(|| HandleKey::of(&profile.handle));
            prop_assert_eq!(handle_key(&whole), handle);
        }
    }

    #[test]
    fn a_response_without_a_user_decodes_to_none() {
        let empty = pb::GetUserResponse::default();
        assert_eq!(plain::GetUserResponse::decode(&*empty.encode_to_vec()).unwrap().user, None);
    }

    #[test]
    fn an_unknown_field_is_passed_on() {
        let id = UserId::new("ada".to_owned());
        let user = pb::User { id: id.to_string(), version: 3, ..pb::User::default() };
        let newer = [user.encode_to_vec(), vec![0xfa, 0x01, 3, b'n', b'e', b'w']].concat(); // field 31, a text
        assert_eq!(parse(&id, 3, newer.clone().into()).unwrap().bytes, newer);
    }
}
