//! The bytes of a user: encoded once, where the user was read from Postgres, then cached and answered as they are.
//!
//! A field that this release does not know, because an instance of a newer one has cached the user, is handed on, too.

use bytes::Bytes;
use prost::Message;

use crate::model::{EncodedUser, HandleKey, User, UserId};

/// What is looked at of a user that stays encoded; its bytes are shared.
#[derive(Clone, PartialEq, Message)]
struct Glance {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    handle: Bytes,
    #[prost(int64, tag = "8")]
    version: i64,
}

/// A user as callers are told of it.
pub fn encoded(user: User) -> EncodedUser {
    EncodedUser { version: user.version, bytes: super::user(user).encode_to_vec().into() }
}

/// The bytes of this user at this version; `None` if they are not.
pub fn parse(id: &UserId, version: i64, bytes: Bytes) -> Option<EncodedUser> {
    let glance = Glance::decode(bytes.clone()).ok()?;
    (glance.id == id.as_str() && glance.version == version).then_some(EncodedUser { version, bytes })
}

/// The key of the handle that a user has.
pub fn handle_key(user: &EncodedUser) -> Option<HandleKey> {
    let glance = Glance::decode(user.bytes.clone()).ok()?;
    let handle = std::str::from_utf8(&glance.handle).ok()?;
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
        fn an_answer_of_an_encoded_user_has_the_bytes_of_the_contract(user in users()) {
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
        fn a_glance_sees_whose_the_bytes_are_their_version_and_handle(user in users()) {
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
    fn nobody_is_answered_by_what_tells_of_nobody() {
        let nobody = pb::GetUserResponse::default();
        assert_eq!(plain::GetUserResponse::decode(&*nobody.encode_to_vec()).unwrap().user, None);
    }

    #[test]
    fn a_field_of_a_newer_release_is_handed_on() {
        let id = UserId::new("ada".to_owned());
        let user = pb::User { id: id.to_string(), version: 3, ..pb::User::default() };
        let newer = [user.encode_to_vec(), vec![0xfa, 0x01, 3, b'n', b'e', b'w']].concat(); // field 31, a text
        assert_eq!(parse(&id, 3, newer.clone().into()).unwrap().bytes, newer);
    }
}
