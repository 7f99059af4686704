//! `user_account`: the profiles. Every write inserts its row in `cache_outbox` in the same
//! statement.

mod handle;
mod no_update;
mod page;

use std::collections::BTreeMap;
use std::slice::from_ref;

use sqlx::types::Json;
use tidings_postgres::{Bulkhead, Fault, Postgres};

use self::no_update::NoUpdateReason;
use super::row::{Row, query_rows};
use crate::model::{Deletion, HandleKey, NewUser, User, UserId, UserRecord, UserUpdate};

/// The table `user_account`.
#[derive(Clone, Debug)]
pub struct Accounts {
    postgres: Postgres,
    /// Share of the pool for reads of callers.
    reads: Bulkhead,
}

/// Outcome of a creation.
#[derive(Clone, Debug)]
pub enum CreateUserOutcome {
    /// The user was created.
    New(User),
    /// An earlier, equal request had created the user, which is returned as it is now.
    Repeated(User),
    /// The id belongs to another user, or to a deleted one.
    IdTaken,
    /// The handle belongs to another user.
    HandleTaken,
    /// The request id was already used for another user.
    RequestIdReused,
}

/// Outcome of an update.
#[derive(Clone, Debug)]
pub enum UpdateUserOutcome {
    /// The user after the update.
    Done(User),
    /// The user does not exist, or is deleted.
    NotFound,
    /// The user is not at the expected version.
    Mismatch {
        /// The current version.
        version: i64,
    },
    /// The handle belongs to another user.
    HandleTaken,
}

/// Outcome of a deletion.
#[derive(Clone, Debug)]
pub enum DeleteUserOutcome {
    /// The user is deleted.
    Done(Deletion),
    /// The user does not exist, or is already deleted.
    NotFound,
    /// The user is not at the expected version.
    Mismatch {
        /// The current version.
        version: i64,
    },
}

/// Value of the column `handle_key`: NULL for an empty handle.
fn handle_key(handle: &str) -> Option<String> {
    (!handle.is_empty()).then(|| HandleKey::of(handle).into_string())
}

impl Accounts {
    pub(super) fn new(postgres: Postgres, reads: Bulkhead) -> Self {
        Self { postgres, reads }
    }

    /// Returns the record of an id.
    pub async fn read(&self, id: &UserId) -> Result<UserRecord, Fault> {
        let rows = self.reads.read(async |connection| rows(connection, &[id.to_string()]).await).await?;
        Ok(rows.into_iter().next().map_or(UserRecord::Absent { version: 0 }, Row::into_record))
    }

    /// Returns the records of at most 500 ids.
    pub async fn read_many(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, UserRecord>, Fault> {
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.reads.read(async |connection| rows(connection, &names).await).await?;
        let mut records = by_id(rows);
        for id in ids {
            records.entry(id.clone()).or_insert(UserRecord::Absent { version: 0 });
        }
        Ok(records)
    }

    /// Returns the records of at most 500 ids; leaves out ids without a row. Uses the connections
    /// for background work.
    pub async fn read_for_relay(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, UserRecord>, Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.postgres.run_background(async |connection| rows(connection, &ids).await).await?;
        Ok(by_id(rows))
    }

    /// Returns the row that a write conflicts with. Not limited to the share of callers' reads.
    pub(super) async fn row_for_write(&self, id: &String) -> Result<Option<Row>, Fault> {
        let rows = self.postgres.read(async |connection| rows(connection, from_ref(id)).await).await?;
        Ok(rows.into_iter().next())
    }

    /// Creates a user, or returns the conflict.
    pub async fn create(&self, new: &NewUser) -> Result<CreateUserOutcome, Fault> {
        // The conflicting row may have changed between the two statements: then the INSERT is
        // retried.
        for _ in 0..3 {
            if let Some(user) = self.insert(new).await? {
                return Ok(CreateUserOutcome::New(user));
            }
            if let Some(conflict) = self.find_create_conflict(new).await? {
                return Ok(conflict);
            }
        }
        Ok(CreateUserOutcome::HandleTaken)
    }

    async fn insert(&self, new: &NewUser) -> Result<Option<User>, Fault> {
        let profile = &new.profile;
        let row = self
            .postgres
            .run(async |connection| {
                query_rows!(
                    "
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
                    SELECT " COLUMNS "
                    FROM created",
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

    /// Finds the row that prevented an INSERT; `None` if it no longer exists.
    async fn find_create_conflict(&self, new: &NewUser) -> Result<Option<CreateUserOutcome>, Fault> {
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
            (None, Some(_)) => return Ok(Some(CreateUserOutcome::IdTaken)),
            (None, None) => return Ok((!others.is_empty()).then_some(CreateUserOutcome::HandleTaken)),
        };
        if !first.deleted && first.fingerprint.as_deref() == Some(&new.fingerprint[..]) {
            let row = self.row_for_write(&first.id).await?;
            let user = row.filter(|row| !row.deleted).map(Row::into_user);
            return Ok(Some(user.map_or(CreateUserOutcome::IdTaken, CreateUserOutcome::Repeated)));
        }
        Ok(Some(if same_request.is_some() { CreateUserOutcome::RequestIdReused } else { CreateUserOutcome::IdTaken }))
    }

    /// Changes the named fields, if the user is at the expected version.
    pub async fn update(&self, change: &UserUpdate) -> Result<UpdateUserOutcome, Fault> {
        loop {
            match self.update_row(change).await {
                Ok(Some(user)) => return Ok(UpdateUserOutcome::Done(user)),
                Ok(None) => {}
                Err(Fault::Unique(_)) => return Ok(UpdateUserOutcome::HandleTaken),
                Err(fault) => return Err(fault),
            }
            match self.explain_no_update(&change.id, change.expected_version).await? {
                Some(NoUpdateReason::NotFound) => return Ok(UpdateUserOutcome::NotFound),
                Some(NoUpdateReason::Mismatch { version }) => return Ok(UpdateUserOutcome::Mismatch { version }),
                None => {}
            }
        }
    }

    async fn update_row(&self, change: &UserUpdate) -> Result<Option<User>, Fault> {
        let UserUpdate { id, expected_version, fields, profile } = change;
        let row = self
            .postgres
            .run(async |connection| {
                query_rows!(
                    "
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
                            update_time = greatest(now(), update_time)
                        WHERE id = $1
                          AND delete_time IS NULL
                          AND ($2::bigint IS NULL OR version = $2)
                        RETURNING *
                    ), news AS (
                        INSERT INTO cache_outbox (user_id)
                        SELECT id
                        FROM updated
                    )
                    SELECT " COLUMNS "
                    FROM updated",
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
        fail::fail_point!("user::after_update", |_| Err(Fault::Ambiguous(tidings_postgres::Cause::new("fail-point"))));
        Ok(row.map(Row::into_user))
    }

    /// Turns a user into a tombstone, if it is at the expected version.
    pub async fn delete(&self, id: &UserId, expected_version: Option<i64>) -> Result<DeleteUserOutcome, Fault> {
        loop {
            if let Some(deletion) = self.delete_row(id, expected_version).await? {
                return Ok(DeleteUserOutcome::Done(deletion));
            }
            match self.explain_no_update(id, expected_version).await? {
                Some(NoUpdateReason::NotFound) => return Ok(DeleteUserOutcome::NotFound),
                Some(NoUpdateReason::Mismatch { version }) => return Ok(DeleteUserOutcome::Mismatch { version }),
                None => {}
            }
        }
    }

    async fn delete_row(&self, id: &UserId, expected_version: Option<i64>) -> Result<Option<Deletion>, Fault> {
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
                            update_time = greatest(now(), update_time),
                            delete_time = greatest(now(), update_time)
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
        fail::fail_point!("user::after_delete", |_| Err(Fault::Ambiguous(tidings_postgres::Cause::new("fail-point"))));
        Ok(tombstone.map(|row| Deletion { version: row.version, time: row.delete_time.into() }))
    }
}

fn by_id(rows: Vec<Row>) -> BTreeMap<UserId, UserRecord> {
    rows.into_iter().map(|row| (row.id(), row.into_record())).collect()
}

async fn rows(connection: &mut sqlx::PgConnection, ids: &[String]) -> Result<Vec<Row>, sqlx::Error> {
    query_rows!(
        "
        SELECT " COLUMNS "
        FROM user_account
        WHERE id = ANY($1)
        LIMIT 500",
        ids,
    )
    .fetch_all(connection)
    .await
}
