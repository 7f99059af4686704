//! Rows of `user_account`.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use crate::model::{Profile, User, UserId, UserRecord};
use crate::wire;

/// Value of the column `attributes`.
pub(super) type Attributes = Json<BTreeMap<String, String>>;

/// The columns of a row, except those that only statements need.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) handle: String,
    pub(super) display_name: String,
    pub(super) age: Option<i16>,
    pub(super) avatar_uri: String,
    pub(super) bio: String,
    pub(super) attributes: Attributes,
    pub(super) version: i64,
    pub(super) create_time: OffsetDateTime,
    pub(super) update_time: OffsetDateTime,
    pub(super) deleted: bool,
}

/// A statement that returns [`Row`]s, checked at compile time.
///
/// `COLUMNS` inserts the list of columns into its text:
/// `query_rows!("SELECT " COLUMNS " FROM user_account WHERE id = $1", id)`. In a statement over a
/// CTE the columns count as nullable, hence the `!`.
macro_rules! query_rows {
    ($before:literal COLUMNS $after:literal, $($args:tt)*) => {
        sqlx::query_as!(
            $crate::store::row::Row,
            $before
                + r#"
                id AS "id!",
                handle AS "handle!",
                display_name AS "display_name!",
                age,
                avatar_uri AS "avatar_uri!",
                bio AS "bio!",
                attributes AS "attributes!: crate::store::row::Attributes",
                version AS "version!",
                create_time AS "create_time!",
                update_time AS "update_time!",
                delete_time IS NOT NULL AS "deleted!"
                "#
                + $after,
            $($args)*
        )
    };
}

pub(super) use query_rows;

impl Row {
    pub(super) fn id(&self) -> UserId {
        UserId::new(self.id.clone())
    }

    pub(super) fn into_record(self) -> UserRecord {
        if self.deleted {
            return UserRecord::Absent { version: self.version };
        }
        UserRecord::Present(wire::encoded(self.into_user()))
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
