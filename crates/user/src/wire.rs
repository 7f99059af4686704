//! Conversion between the model and the contract's messages, and validation of requests.

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
pub use handle::{GetUserByHandle, get_by_handle};
pub use list::{ListUsers, list, page};
pub use watch::{decode_versions, encode_versions, frame, watch};

use crate::model::{
    Consistency, FieldSet, NewUser, Profile, ReadSource, User, UserId, UserRead, UserRecord, UserUpdate,
};

/// Domain of the reasons in `ErrorInfo`.
pub const DOMAIN: &str = "user.tidings";

/// Limit of ids in one BatchGetUsers.
const BATCH_MAX: usize = 500;
/// Limit of bytes of users in a response: by default gRPC clients refuse more than 4 MiB.
const RESPONSE_BYTES_MAX: usize = 3_670_016;
const DISPLAY_NAME_MAX: usize = 256;
const AVATAR_URI_MAX: usize = 2048;
const BIO_MAX: usize = 4096;
const AGE_MAX: i32 = 150;

/// A validated GetUser.
#[derive(Debug)]
pub struct GetUser {
    /// Id of the user.
    pub id: UserId,
    /// Lowest acceptable version; 0 means any.
    pub min_version: i64,
    /// Consistency of the read.
    pub consistency: Consistency,
}

/// Validates a request of GetUser, and converts it into the model.
pub fn get(request: pb::GetUserRequest) -> Result<GetUser, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.not_negative("min_version", request.min_version);
    let consistency = consistency(&mut fields, request.consistency);
    fields.finish()?;
    Ok(GetUser { id: UserId::new(request.id), min_version: request.min_version, consistency })
}

/// Validates BatchGetUsers; returns the ids and the consistency of the read.
pub fn batch_get(request: pb::BatchGetUsersRequest) -> Result<(Vec<UserId>, Consistency), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("ids", &request.ids.len(), &(1..=BATCH_MAX));
    for (index, id) in request.ids.iter().enumerate().take(BATCH_MAX) {
        fields.id(format_args!("ids[{index}]"), id);
    }
    let consistency = consistency(&mut fields, request.consistency);
    fields.finish()?;
    Ok((request.ids.into_iter().map(UserId::new).collect(), consistency))
}

/// Validates a request of CreateUser, and converts it into the model.
pub fn create(request: pb::CreateUserRequest) -> Result<NewUser, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.optional_id("request_id", &request.request_id);
    fields.require("user", request.user.is_some(), "expected a user");
    let mut requested =
        pb::User { version: 0, create_time: None, update_time: None, ..request.user.unwrap_or_default() };
    fields.within("user", |fields| {
        fields.optional_id("id", &requested.id);
        profile_fields(fields, &mut requested);
    });
    fields.finish()?;
    let fingerprint = Sha256::digest(requested.encode_to_vec()).into();
    let id = if requested.id.is_empty() { Uuid::now_v7().to_string() } else { requested.id.clone() };
    Ok(NewUser {
        id: UserId::new(id),
        request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        fingerprint,
        profile: profile(requested),
    })
}

/// Validates a request of UpdateUser, and converts it into the model.
pub fn update(request: pb::UpdateUserRequest) -> Result<UserUpdate, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.not_negative("expected_version", request.expected_version);
    let mask_fields = field_set(&mut fields, request.update_mask);
    let mut user = request.user.unwrap_or_default();
    fields.within("user", |fields| {
        fields.id("id", &user.id);
        profile_fields(fields, &mut user);
    });
    fields.finish()?;
    Ok(UserUpdate {
        id: UserId::new(user.id.clone()),
        expected_version: Some(request.expected_version).filter(|version| *version > 0),
        fields: mask_fields,
        profile: profile(user),
    })
}

/// Validates DeleteUser; returns the id and the expected version.
pub fn delete(request: pb::DeleteUserRequest) -> Result<(UserId, Option<i64>), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.not_negative("expected_version", request.expected_version);
    fields.finish()?;
    let expected = Some(request.expected_version).filter(|version| *version > 0);
    Ok((UserId::new(request.id), expected))
}

fn consistency(fields: &mut Fields, value: i32) -> Consistency {
    match pb::Consistency::try_from(value) {
        Ok(pb::Consistency::Strong) => Consistency::Strong,
        Ok(pb::Consistency::Cached | pb::Consistency::Unspecified) => Consistency::Cached,
        Err(_) => {
            fields.refuse("consistency", format!("expected CACHED (1) or STRONG (2), got {value}"));
            Consistency::Cached
        }
    }
}

fn field_set(fields: &mut Fields, mask: Option<prost_types::FieldMask>) -> FieldSet {
    let mut mask_fields = FieldSet::default();
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    fields.require("update_mask", !paths.is_empty(), "expected at least one field");
    for path in paths {
        match path.as_str() {
            "handle" => mask_fields.handle = true,
            "display_name" => mask_fields.display_name = true,
            "age" => mask_fields.age = true,
            "avatar_uri" => mask_fields.avatar_uri = true,
            "bio" => mask_fields.bio = true,
            "attributes" => mask_fields.attributes = true,
            _ => fields.refuse(
                "update_mask",
                format!(
                    "expected handle, display_name, age, avatar_uri, bio or attributes, got {}",
                    Fields::quoted(&path)
                ),
            ),
        }
    }
    mask_fields
}

/// Validates the fields of a profile, and composes the handle.
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

/// Converts a user to the contract's message.
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

/// Converts the source, age and staleness of a read.
pub fn read_info(read: &UserRead) -> pb::ReadInfo {
    pb::ReadInfo {
        source: match read.source {
            ReadSource::LocalCache => pb::read_info::Source::LocalCache.into(),
            ReadSource::Redis => pb::read_info::Source::Redis.into(),
            ReadSource::Postgres => pb::read_info::Source::Postgres.into(),
        },
        age: Some(duration(read.age)),
        stale: read.stale,
    }
}

/// Builds the response of BatchGetUsers: one result for each id, in order. Ids without a result,
/// and those that would exceed the size of a response, are UNAVAILABLE.
pub fn batch(ids: &[UserId], reads: &BTreeMap<UserId, UserRead>) -> pb::BatchGetUsersResponse {
    let mut bytes = 0;
    let results = ids.iter().map(|id| {
        let result = batch_result(id, reads.get(id));
        bytes += result.encoded_len();
        if bytes > RESPONSE_BYTES_MAX { batch_result(id, None) } else { result }
    });
    pb::BatchGetUsersResponse { results: results.collect() }
}

fn batch_result(id: &UserId, read: Option<&UserRead>) -> pb::BatchGetUsersResult {
    use pb::batch_get_users_result::Outcome;
    let (outcome, found) = match read.map(|read| &read.record) {
        Some(UserRecord::Present(found)) => (Outcome::Found, found.bytes.clone()),
        Some(UserRecord::Absent { .. }) => (Outcome::NotFound, Bytes::new()),
        None => (Outcome::Unavailable, Bytes::new()),
    };
    pb::BatchGetUsersResult { id: id.to_string(), outcome: outcome.into(), user: found, read_info: read.map(read_info) }
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}
