//! Settings of the broadcast service.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::{InvalidSetting, bytes, duration};

use crate::channels::Retention;
use crate::domain::{HubLimits, RingLimits};

/// Settings of the broadcast service.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7404", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Connection to Redis.
    #[command(flatten)]
    pub redis: tidings_redis::Args,

    /// Settings of the gRPC server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// Retention of messages in Redis.
    #[command(flatten, next_help_heading = "Channels")]
    pub channels: ChannelArgs,

    /// Limits of streams, and of the rings that serve them.
    #[command(flatten, next_help_heading = "Streams")]
    pub streams: StreamArgs,
}

/// Retention of messages in Redis.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ChannelArgs {
    /// Messages kept in Redis per channel, 1 to 1000.
    #[arg(long, env = "TIDINGS_BROADCAST_HISTORY_COUNT", default_value_t = Self::default().broadcast_history_count,
          value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub broadcast_history_count: u16,

    /// Time that a message is kept in Redis, at most `1h`.
    #[arg(long, env = "TIDINGS_BROADCAST_HISTORY_AGE", default_value_t = Self::default().broadcast_history_age,
          value_name = "DURATION", value_parser = age)]
    pub broadcast_history_age: humantime::Duration,
}

/// Limits of streams, and of the rings that serve them.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct StreamArgs {
    /// Time without a frame after which a stream sends a heartbeat, e.g. `25s`.
    #[arg(long, env = "TIDINGS_BROADCAST_HEARTBEAT", default_value_t = Self::default().broadcast_heartbeat,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_heartbeat: humantime::Duration,

    /// Time that a channel without subscribers stays subscribed in Redis, e.g. `30s`.
    #[arg(long, env = "TIDINGS_BROADCAST_LINGER", default_value_t = Self::default().broadcast_linger,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_linger: humantime::Duration,

    /// Longest wait of a stream for data it needs from Redis, e.g. `30s`; then the stream ends.
    #[arg(long, env = "TIDINGS_BROADCAST_PATIENCE", default_value_t = Self::default().broadcast_patience,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_patience: humantime::Duration,

    /// Interval of the comparison with Redis, which finds messages lost on pub/sub, e.g. `5s`.
    #[arg(long, env = "TIDINGS_BROADCAST_COMPARE_INTERVAL", default_value_t = Self::default().broadcast_compare_interval,
          value_name = "DURATION", value_parser = duration)]
    pub broadcast_compare_interval: humantime::Duration,

    /// Messages held in memory per channel, 1 to 100000; subscribers further behind are served
    /// from Redis.
    #[arg(long, env = "TIDINGS_BROADCAST_RING_MESSAGES", default_value_t = Self::default().broadcast_ring_messages,
          value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub broadcast_ring_messages: u32,

    /// Bytes of messages held in memory per channel; the newest message is held even if it is
    /// larger.
    #[arg(long, env = "TIDINGS_BROADCAST_RING_BYTES", default_value_t = Self::default().broadcast_ring_bytes,
          value_name = "BYTES", value_parser = bytes)]
    pub broadcast_ring_bytes: usize,

    /// Bytes of messages held in memory for all channels; the channel published to least recently
    /// is evicted first.
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
    /// Returns the limits of the messages kept per channel.
    pub fn retention(&self) -> Retention {
        Retention { count: self.broadcast_history_count, age: *self.broadcast_history_age }
    }
}

impl StreamArgs {
    /// Validates the settings against each other.
    ///
    /// # Errors
    /// [`InvalidSetting`] if one channel may hold more bytes than all channels together.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if self.broadcast_ring_bytes <= self.broadcast_rings_bytes {
            return Ok(());
        }
        let problem = format!(
            "'{}': expected at most the {} of --broadcast-rings-bytes (TIDINGS_BROADCAST_RINGS_BYTES), the limit of all channels together",
            self.broadcast_ring_bytes, self.broadcast_rings_bytes
        );
        Err(InvalidSetting::new("--broadcast-ring-bytes", "TIDINGS_BROADCAST_RING_BYTES", problem))
    }

    /// Returns the limits of the hub.
    pub fn limits(&self) -> HubLimits {
        HubLimits {
            ring: RingLimits { messages: size(self.broadcast_ring_messages), bytes: self.broadcast_ring_bytes },
            rings_bytes: self.broadcast_rings_bytes,
            linger: *self.broadcast_linger,
            heartbeat: *self.broadcast_heartbeat,
            patience: *self.broadcast_patience,
        }
    }
}

/// Longest retention of a message that the contract allows.
const AGE_MAX: Duration = Duration::from_hours(1);

fn age(text: &str) -> Result<humantime::Duration, &'static str> {
    let age = duration(text)?;
    if *age > AGE_MAX { Err("expected at most 1h") } else { Ok(age) }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
