//! `user_account`: the profiles. Every write leaves its row in `cache_outbox` in the same statement.

mod handle;
mod page;

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::SystemTime;

use sqlx::types::Json;
use tidings_postgres::{Bulkhead, Fault, Postgres};

use super::refusal::Refusal;
use super::row::Row;
use crate::model::{Change, HandleKey, NewUser, Record, User, UserId};

/// The profiles.
#[derive(Clone, Debug)]
pub struct Accounts {
    postgres: Postgres,
    /// The way of what callers read.
    reads: Bulkhead,
}

/// What became of a creation.
#[derive(Clone, Debug)]
pub enum Created {
    /// There is a new user.
    New(User),
    /// It had been created before by the same request.
    Repeated(User),
    /// The id is another user's, or a deleted one's.
    IdTaken,
    /// The handle is another user's.
    HandleTaken,
    /// The request id was used for another user.
    RequestIdReused,
}

/// What became of a change.
#[derive(Clone, Debug)]
pub enum Updated {
    /// The user as it is now.
    Done(User),
    /// There is none.
    NotFound,
    /// The user is at another version than expected.
    Mismatch {
        /// The one it is at.
        version: i64,
    },
    /// The handle is another user's.
    HandleTaken,
}

/// What became of a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The user is gone.
    Done {
        /// The version that stands for the deletion.
        version: i64,
        /// When.
        time: SystemTime,
    },
    /// There is none.
    NotFound,
    /// The user is at another version than expected.
    Mismatch {
        /// The one it is at.
        version: i64,
    },
}

/// What is in the row of a user with this handle.
fn handle_key(handle: &str) -> Option<String> {
    (!handle.is_empty()).then(|| HandleKey::of(handle).into_string())
}

impl Accounts {
    pub(super) fn new(postgres: Postgres, reads: Bulkhead) -> Self {
        Self { postgres, reads }
    }

    /// What is known under an id.
    pub async fn read(&self, id: &UserId) -> Result<Record, Fault> {
        let rows = self.reads.run(async |connection| rows(connection, &[id.to_string()]).await).await?;
        Ok(rows.into_iter().next().map_or(Record::Absent { version: 0 }, Row::into_record))
    }

    /// What is known under each of at most 500 ids; ids without a row are left out.
    pub async fn read_many(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, Record>, Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.reads.run(async |connection| rows(connection, &ids).await).await?;
        Ok(by_id(rows))
    }

    /// Like [`Accounts::read_many`], on the connections for background work.
    pub async fn read_for_relay(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, Record>, Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.postgres.run_background(async |connection| rows(connection, &ids).await).await?;
        Ok(by_id(rows))
    }

    /// What is known under an id, for a write that wants to know what stands against it: it is no read of a caller.
    pub(super) async fn row_for_write(&self, id: &String) -> Result<Option<Row>, Fault> {
        let rows = self.postgres.run(async |connection| rows(connection, from_ref(id)).await).await?;
        Ok(rows.into_iter().next())
    }

    /// Creates a user, or says who stands against it.
    pub async fn create(&self, new: &NewUser) -> Result<Created, Fault> {
        // Whoever stood against it may be gone when we look: then there is room.
        for _ in 0..3 {
            if let Some(user) = self.insert(new).await? {
                return Ok(Created::New(user));
            }
            if let Some(refusal) = self.who_stands_against(new).await? {
                return Ok(refusal);
            }
        }
        Ok(Created::HandleTaken)
    }

    async fn insert(&self, new: &NewUser) -> Result<Option<User>, Fault> {
        let profile = &new.profile;
        let row = self
            .postgres
            .run(async |connection| {
                sqlx::query_as!(
                    Row,
                    r#"
                    WITH created AS (
                        INSERT INTO user_account (
                            id, handle, handle_key, display_name, age, avatar_uri, bio, attributes,
                            version, request_id, fingerprint
                        )
                        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10)
                        ON CONFLICT DO NOTHING
                        RETURNING *
                    ), news AS (
                        INSERT INTO cache_outbox (user_id)
                        SELECT id
                        FROM created
                    )
                    SELECT id AS "id!",
                           handle AS "handle!",
                           display_name AS "display_name!",
                           age,
                           avatar_uri AS "avatar_uri!",
                           bio AS "bio!",
                           attributes AS "attributes!: Json<BTreeMap<String, String>>",
                           version AS "version!",
                           create_time AS "create_time!",
                           update_time AS "update_time!",
                           false AS "deleted!"
                    FROM created
                    "#,
                    new.id.as_str(),
                    profile.handle,
                    handle_key(&profile.handle),
                    profile.display_name,
                    profile.age,
                    profile.avatar_uri,
                    profile.bio,
                    Json(&profile.attributes) as _,
                    new.request_id,
                    &new.fingerprint[..],
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(Row::into_user))
    }

    async fn who_stands_against(&self, new: &NewUser) -> Result<Option<Created>, Fault> {
        let others = self
            .postgres
            .run(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT id,
                           request_id,
                           fingerprint,
                           delete_time IS NOT NULL AS "deleted!"
                    FROM user_account
                    WHERE id = $1
                       OR request_id = $2
                       OR handle_key = $3
                    LIMIT 3
                    "#,
                    new.id.as_str(),
                    new.request_id,
                    handle_key(&new.profile.handle),
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let same_request = others.iter().find(|other| new.request_id.is_some() && other.request_id == new.request_id);
        let same_id = others.iter().find(|other| other.id == new.id.as_str());
        let first = match (same_request, same_id) {
            (Some(other), _) => other,
            (None, Some(other)) if new.request_id.is_none() => other,
            (None, Some(_)) => return Ok(Some(Created::IdTaken)),
            (None, None) => return Ok((!others.is_empty()).then_some(Created::HandleTaken)),
        };
        if !first.deleted && first.fingerprint.as_deref() == Some(&new.fingerprint[..]) {
            let row = self.row_for_write(&first.id).await?;
            let user = row.filter(|row| !row.deleted).map(Row::into_user);
            return Ok(Some(user.map_or(Created::IdTaken, Created::Repeated)));
        }
        Ok(Some(if same_request.is_some() { Created::RequestIdReused } else { Created::IdTaken }))
    }

    /// Changes the named fields, if the version is as expected.
    pub async fn update(&self, change: &Change) -> Result<Updated, Fault> {
        loop {
            match self.update_row(change).await {
                Ok(Some(user)) => return Ok(Updated::Done(user)),
                Ok(None) => {}
                Err(Fault::Unique(_)) => return Ok(Updated::HandleTaken),
                Err(fault) => return Err(fault),
            }
            match self.why_not(&change.id, change.expected_version).await? {
                Some(Refusal::NotFound) => return Ok(Updated::NotFound),
                Some(Refusal::Mismatch { version }) => return Ok(Updated::Mismatch { version }),
                None => {}
            }
        }
    }

    async fn update_row(&self, change: &Change) -> Result<Option<User>, Fault> {
        let Change { id, expected_version, fields, profile } = change;
        let row = self
            .postgres
            .run(async |connection| {
                sqlx::query_as!(
                    Row,
                    r#"
                    WITH updated AS (
                        UPDATE user_account
                        SET handle = CASE WHEN $3 THEN $4 ELSE handle END,
                            handle_key = CASE WHEN $3 THEN $5 ELSE handle_key END,
                            display_name = CASE WHEN $6 THEN $7 ELSE display_name END,
                            age = CASE WHEN $8 THEN $9 ELSE age END,
                            avatar_uri = CASE WHEN $10 THEN $11 ELSE avatar_uri END,
                            bio = CASE WHEN $12 THEN $13 ELSE bio END,
                            attributes = CASE WHEN $14 THEN $15 ELSE attributes END,
                            version = version + 1,
                            update_time = now()
                        WHERE id = $1
                          AND delete_time IS NULL
                          AND ($2::bigint IS NULL OR version = $2)
                        RETURNING *
                    ), news AS (
                        INSERT INTO cache_outbox (user_id)
                        SELECT id
                        FROM updated
                    )
                    SELECT id AS "id!",
                           handle AS "handle!",
                           display_name AS "display_name!",
                           age,
                           avatar_uri AS "avatar_uri!",
                           bio AS "bio!",
                           attributes AS "attributes!: Json<BTreeMap<String, String>>",
                           version AS "version!",
                           create_time AS "create_time!",
                           update_time AS "update_time!",
                           false AS "deleted!"
                    FROM updated
                    "#,
                    id.as_str(),
                    *expected_version,
                    fields.handle,
                    profile.handle,
                    handle_key(&profile.handle),
                    fields.display_name,
                    profile.display_name,
                    fields.age,
                    profile.age,
                    fields.avatar_uri,
                    profile.avatar_uri,
                    fields.bio,
                    profile.bio,
                    fields.attributes,
                    Json(&profile.attributes) as _,
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(Row::into_user))
    }

    /// Turns a user into a tombstone, if the version is as expected.
    pub async fn delete(&self, id: &UserId, expected_version: Option<i64>) -> Result<Deleted, Fault> {
        loop {
            if let Some((version, time)) = self.delete_row(id, expected_version).await? {
                return Ok(Deleted::Done { version, time });
            }
            match self.why_not(id, expected_version).await? {
                Some(Refusal::NotFound) => return Ok(Deleted::NotFound),
                Some(Refusal::Mismatch { version }) => return Ok(Deleted::Mismatch { version }),
                None => {}
            }
        }
    }

    async fn delete_row(&self, id: &UserId, expected_version: Option<i64>) -> Result<Option<(i64, SystemTime)>, Fault> {
        let tombstone = self
            .postgres
            .run(async |connection| {
                sqlx::query!(
                    r#"
                    WITH deleted AS (
                        UPDATE user_account
                        SET handle = '',
                            handle_key = NULL,
                            display_name = '',
                            age = NULL,
                            avatar_uri = '',
                            bio = '',
                            attributes = '{}',
                            fingerprint = NULL,
                            version = version + 1,
                            update_time = now(),
                            delete_time = now()
                        WHERE id = $1
                          AND delete_time IS NULL
                          AND ($2::bigint IS NULL OR version = $2)
                        RETURNING id, version, delete_time
                    ), news AS (
                        INSERT INTO cache_outbox (user_id)
                        SELECT id
                        FROM deleted
                    )
                    SELECT version AS "version!",
                           delete_time AS "delete_time!"
                    FROM deleted
                    "#,
                    id.as_str(),
                    expected_version,
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(tombstone.map(|row| (row.version, row.delete_time.into())))
    }
}

fn by_id(rows: Vec<Row>) -> BTreeMap<UserId, Record> {
    rows.into_iter().map(|row| (row.id(), row.into_record())).collect()
}

async fn rows(connection: &mut sqlx::PgConnection, ids: &[String]) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT id,
               handle,
               display_name,
               age,
               avatar_uri,
               bio,
               attributes AS "attributes: Json<BTreeMap<String, String>>",
               version,
               create_time,
               update_time,
               delete_time IS NOT NULL AS "deleted!"
        FROM user_account
        WHERE id = ANY($1)
        LIMIT 500
        "#,
        ids,
    )
    .fetch_all(connection)
    .await
}
