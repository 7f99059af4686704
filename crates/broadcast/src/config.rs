//! The settings: what all services share, and a few of our own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::security::Wrong;
use tidings_server::{bytes, duration};

use crate::channels::Kept;
use crate::hub::{Limits, RingLimits};

/// What a broadcast service needs to run.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7404", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Where Redis is.
    #[command(flatten)]
    pub redis: tidings_redis::Args,

    /// Limits of the server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// How channels behave.
    #[command(flatten, next_help_heading = "Channels")]
    pub channels: ChannelArgs,

    /// How streams are served.
    #[command(flatten, next_help_heading = "Streams")]
    pub streams: StreamArgs,
}

/// How channels behave.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ChannelArgs {
    /// Messages of a channel that are kept in Redis, 1 to 1000.
    #[arg(long, env = "TIDINGS_BROADCAST_HISTORY_COUNT", default_value_t = Self::default().broadcast_history_count,
          value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub broadcast_history_count: u16,

    /// How long a message is kept in Redis, at most `1h`.
    #[arg(long, env = "TIDINGS_BROADCAST_HISTORY_AGE", default_value_t = Self::default().broadcast_history_age,
          value_name = "DURATION", value_parser = age)]
    pub broadcast_history_age: humantime::Duration,
}

/// How streams are served.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct StreamArgs {
    /// Silence after which a stream hears a heartbeat, e.g. `25s`.
    #[arg(long, env = "TIDINGS_BROADCAST_HEARTBEAT", default_value_t = Self::default().broadcast_heartbeat,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_heartbeat: humantime::Duration,

    /// How long a channel is heard after its last subscriber, e.g. `30s`.
    #[arg(long, env = "TIDINGS_BROADCAST_LINGER", default_value_t = Self::default().broadcast_linger,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_linger: humantime::Duration,

    /// Longest wait of a stream for Redis where it needs it, e.g. `30s`; then the stream ends.
    #[arg(long, env = "TIDINGS_BROADCAST_PATIENCE", default_value_t = Self::default().broadcast_patience,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_patience: humantime::Duration,

    /// How often what was heard is compared with Redis, e.g. `5s`: a message that got lost on its way is found so late.
    #[arg(long, env = "TIDINGS_BROADCAST_COMPARE_INTERVAL", default_value_t = Self::default().broadcast_compare_interval,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_compare_interval: humantime::Duration,

    /// Messages of a channel that are held in memory, 1 to 100000; who is further behind is served from Redis.
    #[arg(long, env = "TIDINGS_BROADCAST_RING_MESSAGES", default_value_t = Self::default().broadcast_ring_messages,
          value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub broadcast_ring_messages: u32,

    /// Bytes of a channel that are held in memory; the newest message is, however long.
    #[arg(long, env = "TIDINGS_BROADCAST_RING_BYTES", default_value_t = Self::default().broadcast_ring_bytes,
          value_name = "BYTES", value_parser = bytes)]
    pub broadcast_ring_bytes: usize,

    /// Bytes of all channels that are held in memory; the channel that was published to least recently gives way.
    #[arg(long, env = "TIDINGS_BROADCAST_RINGS_BYTES", default_value_t = Self::default().broadcast_rings_bytes,
          value_name = "BYTES", value_parser = bytes)]
    pub broadcast_rings_bytes: usize,
}

impl Default for ChannelArgs {
    fn default() -> Self {
        Self { broadcast_history_count: 1000, broadcast_history_age: AGE_MAX.into() }
    }
}

impl Default for StreamArgs {
    fn default() -> Self {
        Self {
            broadcast_heartbeat: Duration::from_secs(25).into(),
            broadcast_linger: Duration::from_secs(30).into(),
            broadcast_patience: Duration::from_secs(30).into(),
            broadcast_compare_interval: Duration::from_secs(5).into(),
            broadcast_ring_messages: 256,
            broadcast_ring_bytes: 256 * 1024,
            broadcast_rings_bytes: 256 * 1024 * 1024,
        }
    }
}

impl ChannelArgs {
    /// How much of a channel is kept.
    pub fn kept(&self) -> Kept {
        Kept { count: self.broadcast_history_count, age: *self.broadcast_history_age }
    }
}

impl StreamArgs {
    /// Says what these settings together are wrong about.
    ///
    /// # Errors
    /// A channel that may hold more than all of them together.
    pub fn validate(&self) -> Result<(), Wrong> {
        if self.broadcast_ring_bytes <= self.broadcast_rings_bytes {
            return Ok(());
        }
        let problem = format!(
            "'{}': expected at most the {} of --broadcast-rings-bytes (TIDINGS_BROADCAST_RINGS_BYTES), which is for all channels",
            self.broadcast_ring_bytes, self.broadcast_rings_bytes
        );
        Err(Wrong::new("--broadcast-ring-bytes", "TIDINGS_BROADCAST_RING_BYTES", problem))
    }

    /// What bounds the hub.
    pub fn limits(&self) -> Limits {
        Limits {
            ring: RingLimits { messages: size(self.broadcast_ring_messages), bytes: self.broadcast_ring_bytes },
            rings_bytes: self.broadcast_rings_bytes,
            linger: *self.broadcast_linger,
            heartbeat: *self.broadcast_heartbeat,
            patience: *self.broadcast_patience,
        }
    }
}

/// The longest that a message may be kept, as the contract says.
const AGE_MAX: Duration = Duration::from_hours(1);

fn age(text: &str) -> Result<humantime::Duration, &'static str> {
    let age = duration(text)?;
    if *age > AGE_MAX { Err("expected at most 1h") } else { Ok(age) }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
