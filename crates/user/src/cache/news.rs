//! The one pub/sub channel on which instances tell each other what the relay has applied: `<prefix>:user:news`, the same in
//! every reign. Redis may lose what is told there; who hears it compares.

use tidings_redis::{Cmd, Lane, cmd};

use crate::model::UserVersion;
use crate::wire;

/// The channel, as a subscriber names it.
pub const NEWS: &str = "news";

/// Tells these versions.
pub(super) fn told(lane: &Lane, versions: impl IntoIterator<Item = UserVersion>) -> Cmd {
    let mut publish = cmd("PUBLISH");
    publish.arg(lane.channel(format_args!("{NEWS}"))).arg(wire::news(versions));
    publish
}

/// What was heard on a channel.
pub fn heard(channel: &str, told: &[u8]) -> Vec<UserVersion> {
    if channel == NEWS { wire::heard(told) } else { Vec::new() }
}
