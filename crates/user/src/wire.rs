//! Model <-> contract messages, both ways.

mod encoded;
mod handle;
mod list;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::user::encoded as pb;
use tidings_status::{Fields, Invalid};
use uuid::Uuid;

pub use encoded::{encoded, handle_key, parse};
pub use handle::{GetByHandle, get_by_handle};
pub use list::{List, list, page};
pub use watch::{frame, heard, news, watch};

use crate::model::{Change, FieldSet, NewUser, Profile, Read, Record, Source, User, UserId};

/// Whose reasons our errors give.
pub const DOMAIN: &str = "user.tidings";

/// The most ids of one BatchGetUsers.
const BATCH_MAX: usize = 500;
/// The most bytes of users in an answer: clients refuse more than 4 MiB unless told otherwise.
const ANSWER_BYTES_MAX: usize = 3_670_016;
const DISPLAY_NAME_MAX: usize = 256;
const AVATAR_URI_MAX: usize = 2048;
const BIO_MAX: usize = 4096;
const AGE_MAX: i32 = 150;

/// A checked GetUser.
#[derive(Debug)]
pub struct Get {
    /// Whom.
    pub id: UserId,
    /// At least this version.
    pub min_version: i64,
    /// Past the cache.
    pub strong: bool,
}

/// Checks GetUser.
pub fn get(request: pb::GetUserRequest) -> Result<Get, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.not_negative("min_version", request.min_version);
    let strong = consistency(&mut fields, request.consistency);
    fields.finish()?;
    Ok(Get { id: UserId::new(request.id), min_version: request.min_version, strong })
}

/// Checks BatchGetUsers: the ids and whether to read past the cache.
pub fn batch_get(request: pb::BatchGetUsersRequest) -> Result<(Vec<UserId>, bool), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("ids", &request.ids.len(), &(1..=BATCH_MAX));
    for (place, id) in request.ids.iter().enumerate().take(BATCH_MAX) {
        fields.id(format_args!("ids[{place}]"), id);
    }
    let strong = consistency(&mut fields, request.consistency);
    fields.finish()?;
    Ok((request.ids.into_iter().map(UserId::new).collect(), strong))
}

/// Checks CreateUser.
pub fn create(request: pb::CreateUserRequest) -> Result<NewUser, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.optional_id("request_id", &request.request_id);
    fields.require("user", request.user.is_some(), "expected a user");
    let mut asked = pb::User { version: 0, create_time: None, update_time: None, ..request.user.unwrap_or_default() };
    fields.within("user", |fields| {
        fields.optional_id("id", &asked.id);
        profile_fields(fields, &mut asked);
    });
    fields.finish()?;
    let fingerprint = Sha256::digest(asked.encode_to_vec()).into();
    let id = if asked.id.is_empty() { Uuid::now_v7().to_string() } else { asked.id.clone() };
    Ok(NewUser {
        id: UserId::new(id),
        request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        fingerprint,
        profile: profile(asked),
    })
}

/// Checks UpdateUser.
pub fn update(request: pb::UpdateUserRequest) -> Result<Change, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.not_negative("expected_version", request.expected_version);
    let named = field_set(&mut fields, request.update_mask);
    let mut user = request.user.unwrap_or_default();
    fields.within("user", |fields| {
        fields.id("id", &user.id);
        profile_fields(fields, &mut user);
    });
    fields.finish()?;
    Ok(Change {
        id: UserId::new(user.id.clone()),
        expected_version: Some(request.expected_version).filter(|version| *version > 0),
        fields: named,
        profile: profile(user),
    })
}

/// Checks DeleteUser: whom, and at which version only.
pub fn delete(request: pb::DeleteUserRequest) -> Result<(UserId, Option<i64>), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.not_negative("expected_version", request.expected_version);
    fields.finish()?;
    let expected = Some(request.expected_version).filter(|version| *version > 0);
    Ok((UserId::new(request.id), expected))
}

fn consistency(fields: &mut Fields, value: i32) -> bool {
    match pb::Consistency::try_from(value) {
        Ok(pb::Consistency::Strong) => true,
        Ok(pb::Consistency::Cached | pb::Consistency::Unspecified) => false,
        Err(_) => {
            fields.refuse("consistency", format!("expected CACHED (1) or STRONG (2), got {value}"));
            false
        }
    }
}

fn field_set(fields: &mut Fields, mask: Option<prost_types::FieldMask>) -> FieldSet {
    let mut named = FieldSet::default();
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    fields.require("update_mask", !paths.is_empty(), "expected at least one field");
    for path in paths {
        match path.as_str() {
            "handle" => named.handle = true,
            "display_name" => named.display_name = true,
            "age" => named.age = true,
            "avatar_uri" => named.avatar_uri = true,
            "bio" => named.bio = true,
            "attributes" => named.attributes = true,
            _ => fields.refuse(
                "update_mask",
                format!(
                    "expected handle, display_name, age, avatar_uri, bio or attributes, got {}",
                    Fields::quoted(&path)
                ),
            ),
        }
    }
    named
}

/// Checks what can be changed, and composes the handle.
fn profile_fields(fields: &mut Fields, user: &mut pb::User) {
    user.handle = handle::optional_handle(fields, "handle", &user.handle);
    fields.text("display_name", &user.display_name, DISPLAY_NAME_MAX);
    if let Some(age) = user.age {
        fields.within_range("age", &age, &(0..=AGE_MAX));
    }
    fields.text("avatar_uri", &user.avatar_uri, AVATAR_URI_MAX);
    fields.text("bio", &user.bio, BIO_MAX);
    fields.attributes("attributes", &user.attributes);
}

fn profile(user: pb::User) -> Profile {
    Profile {
        handle: user.handle,
        display_name: user.display_name,
        age: user.age.and_then(|age| i16::try_from(age).ok()),
        avatar_uri: user.avatar_uri,
        bio: user.bio,
        attributes: user.attributes,
    }
}

/// A user as the contract has it.
pub fn user(user: User) -> pb::User {
    let profile = user.profile;
    pb::User {
        id: user.id.into_string(),
        handle: profile.handle,
        display_name: profile.display_name,
        age: profile.age.map(i32::from),
        avatar_uri: profile.avatar_uri,
        bio: profile.bio,
        attributes: profile.attributes,
        version: user.version,
        create_time: Some(user.create_time.into()),
        update_time: Some(user.update_time.into()),
    }
}

/// Where an answer came from.
pub fn read_info(read: &Read) -> pb::ReadInfo {
    pb::ReadInfo {
        source: match read.source {
            Source::Near => pb::read_info::Source::Near.into(),
            Source::Redis => pb::read_info::Source::Redis.into(),
            Source::Postgres => pb::read_info::Source::Postgres.into(),
        },
        age: Some(duration(read.age)),
        stale: read.stale,
    }
}

/// The answer of BatchGetUsers: a result for each id, in order. Of what nobody could say, or what would make the answer
/// too large to be read, it says so.
pub fn batch(ids: &[UserId], reads: &BTreeMap<UserId, Read>) -> pb::BatchGetUsersResponse {
    let mut bytes = 0;
    let results = ids.iter().map(|id| {
        let result = batch_result(id, reads.get(id));
        bytes += result.encoded_len();
        if bytes > ANSWER_BYTES_MAX { batch_result(id, None) } else { result }
    });
    pb::BatchGetUsersResponse { results: results.collect() }
}

fn batch_result(id: &UserId, read: Option<&Read>) -> pb::BatchGetUsersResult {
    use pb::batch_get_users_result::Outcome;
    let (outcome, found) = match read.map(|read| &read.record) {
        Some(Record::Present(found)) => (Outcome::Found, found.bytes.clone()),
        Some(Record::Absent { .. }) => (Outcome::NotFound, Bytes::new()),
        None => (Outcome::Unavailable, Bytes::new()),
    };
    pb::BatchGetUsersResult { id: id.to_string(), outcome: outcome.into(), user: found, read_info: read.map(read_info) }
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}
