//! The pub/sub channel `<prefix>:user:news` of all incarnations, for versions applied by the relay.
//!
//! Redis may lose messages, so subscribers also compare versions with Postgres.

use tidings_redis::{Cmd, Lane, cmd};

use crate::model::UserVersion;
use crate::wire;

/// Name of the channel, without the prefix.
pub const CHANNEL: &str = "news";

/// Builds the command that publishes these versions.
pub(super) fn publish_command(lane: &Lane, versions: impl IntoIterator<Item = UserVersion>) -> Cmd {
    let mut publish = cmd("PUBLISH");
    publish.arg(lane.channel(format_args!("{CHANNEL}"))).arg(wire::encode_versions(versions));
    publish
}

/// Decodes a message; returns no versions for another channel or a malformed message.
pub fn decode(channel: &str, message: &[u8]) -> Vec<UserVersion> {
    if channel == CHANNEL { wire::decode_versions(message) } else { Vec::new() }
}
