//! Validation and frames of WatchUsers, and the encoding of notifications between instances.

use prost::Message as _;
use tidings_proto::user::encoded as pb;
use tidings_proto::user::encoded::watch_users_response::Frame as PbFrame;
use tidings_server::{DrainCause, StreamGoodbye};
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{UserId, UserVersion, WatchFrame};

/// Limit of ids in one WatchUsers.
const WATCH_MAX: usize = 1000;

/// Validates WatchUsers; returns the ids.
pub fn watch(request: pb::WatchUsersRequest) -> Result<Vec<UserId>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("ids", &request.ids.len(), &(1..=WATCH_MAX));
    for (index, id) in request.ids.iter().enumerate().take(WATCH_MAX) {
        fields.id(format_args!("ids[{index}]"), id);
    }
    fields.finish()?;
    Ok(request.ids.into_iter().map(UserId::new).collect())
}

/// Converts a frame to the contract's message.
pub fn frame(frame: WatchFrame) -> pb::WatchUsersResponse {
    let frame = match frame {
        WatchFrame::Versions(versions) => PbFrame::Versions(pb_versions(versions)),
        WatchFrame::CaughtUp => PbFrame::CaughtUp(pb::CaughtUp {}),
        WatchFrame::Heartbeat { degraded } => PbFrame::Heartbeat(pb::Heartbeat { degraded }),
        WatchFrame::Goodbye(last) => PbFrame::Goodbye(goodbye(last)),
    };
    pb::WatchUsersResponse { frame: Some(frame) }
}

/// Encodes a notification for other instances: the contract's message `UserVersions`.
pub fn encode_versions(versions: impl IntoIterator<Item = UserVersion>) -> Vec<u8> {
    pb_versions(versions).encode_to_vec()
}

/// Decodes a notification; a malformed one has no versions.
pub fn decode_versions(message: &[u8]) -> Vec<UserVersion> {
    let versions = pb::UserVersions::decode(message).unwrap_or_default().versions;
    let version = |it: pb::UserVersion| UserVersion { id: UserId::new(it.id), version: it.version, absent: it.absent };
    versions.into_iter().map(version).collect()
}

fn pb_versions(versions: impl IntoIterator<Item = UserVersion>) -> pb::UserVersions {
    let version = |it: UserVersion| pb::UserVersion { id: it.id.into_string(), version: it.version, absent: it.absent };
    pb::UserVersions { versions: versions.into_iter().map(version).collect() }
}

/// Converts the last words of a stream.
fn goodbye(goodbye: StreamGoodbye) -> pb::Goodbye {
    let reason = match goodbye.cause {
        DrainCause::Shutdown => pb::goodbye::Reason::Shutdown,
        DrainCause::ConnectionAge => pb::goodbye::Reason::ConnectionAge,
    };
    let retry_after = prost_types::Duration::try_from(goodbye.retry_after).ok();
    pb::Goodbye { retry_after, reason: reason.into() }
}
