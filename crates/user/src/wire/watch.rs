//! Versions, as the contract has them; also as they are told from one instance to the others.

use prost::Message as _;
use tidings_proto::user::encoded as pb;
use tidings_proto::user::encoded::watch_users_response::Frame as Told;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{Frame, UserId, UserVersion};

/// The most ids of one WatchUsers.
const WATCH_MAX: usize = 1000;

/// Checks WatchUsers: the ids.
pub fn watch(request: pb::WatchUsersRequest) -> Result<Vec<UserId>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("ids", &request.ids.len(), &(1..=WATCH_MAX));
    for (place, id) in request.ids.iter().enumerate().take(WATCH_MAX) {
        fields.id(format_args!("ids[{place}]"), id);
    }
    fields.finish()?;
    Ok(request.ids.into_iter().map(UserId::new).collect())
}

/// A frame as the contract has it.
pub fn frame(frame: Frame) -> pb::WatchUsersResponse {
    let frame = match frame {
        Frame::Versions(news) => Told::Versions(versions(news)),
        Frame::CaughtUp => Told::CaughtUp(pb::CaughtUp {}),
        Frame::Heartbeat { degraded } => Told::Heartbeat(pb::Heartbeat { degraded }),
        Frame::Goodbye { retry_after } => {
            Told::Goodbye(pb::Goodbye { retry_after: prost_types::Duration::try_from(retry_after).ok() })
        }
    };
    pb::WatchUsersResponse { frame: Some(frame) }
}

/// What is told to other instances of what was committed: `UserVersions`, as the contract has it.
pub fn news(news: impl IntoIterator<Item = UserVersion>) -> Vec<u8> {
    versions(news).encode_to_vec()
}

/// What another instance told; nothing if somebody else has said something there.
pub fn heard(news: &[u8]) -> Vec<UserVersion> {
    let versions = pb::UserVersions::decode(news).unwrap_or_default().versions;
    let version =
        |told: pb::UserVersion| UserVersion { id: UserId::new(told.id), version: told.version, absent: told.absent };
    versions.into_iter().map(version).collect()
}

fn versions(versions: impl IntoIterator<Item = UserVersion>) -> pb::UserVersions {
    let version = |it: UserVersion| pb::UserVersion { id: it.id.into_string(), version: it.version, absent: it.absent };
    pb::UserVersions { versions: versions.into_iter().map(version).collect() }
}
