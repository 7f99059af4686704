//! A row of `user_account` as it is read.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use crate::model::{Profile, Record, User, UserId};
use crate::wire;

/// A row as it is read.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) handle: String,
    pub(super) display_name: String,
    pub(super) age: Option<i16>,
    pub(super) avatar_uri: String,
    pub(super) bio: String,
    pub(super) attributes: Json<BTreeMap<String, String>>,
    pub(super) version: i64,
    pub(super) create_time: OffsetDateTime,
    pub(super) update_time: OffsetDateTime,
    pub(super) deleted: bool,
}

impl Row {
    pub(super) fn id(&self) -> UserId {
        UserId::new(self.id.clone())
    }

    pub(super) fn into_record(self) -> Record {
        if self.deleted {
            return Record::Absent { version: self.version };
        }
        Record::Present(wire::encoded(self.into_user()))
    }

    pub(super) fn into_user(self) -> User {
        User {
            id: UserId::new(self.id),
            profile: Profile {
                handle: self.handle,
                display_name: self.display_name,
                age: self.age,
                avatar_uri: self.avatar_uri,
                bio: self.bio,
                attributes: self.attributes.0,
            },
            version: self.version,
            create_time: self.create_time.into(),
            update_time: self.update_time.into(),
        }
    }
}
