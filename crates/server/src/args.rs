//! The settings that every Tidings server shares. Each is a flag and an environment variable with a
//! documented default.

use std::net::SocketAddr;
use std::time::Duration;

use crate::security;
use crate::setting::{duration, duration_or_zero};
use crate::telemetry::TraceArgs;

/// Limits and timeouts of a server; services flatten them into their own arguments.
///
/// The defaults are written once, in [`Args::default`]; clap reads them from there.
#[derive(Clone, Debug, clap::Args)]
// The group would be called `Args`, like that of every flattened struct, and clap rejects
// duplicates.
#[group(skip)]
pub struct Args {
    /// Address of `/metrics`, `/livez` and `/readyz`, over plain HTTP [default: 127.0.0.1, 2000
    /// above the port of --listen].
    #[arg(long, env = "TIDINGS_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Maximum number of open connections; further ones wait in the backlog of the socket.
    #[arg(long, env = "TIDINGS_MAX_CONNECTIONS", default_value_t = Args::default().max_connections, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// Maximum number of concurrent calls per connection; further ones wait at the client. Three
    /// quarters of them may be streams and calls that wait; further ones of these are refused
    /// [default: 256; lock and broadcast: 1024].
    #[arg(long, env = "TIDINGS_MAX_STREAMS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: Option<u32>,

    /// Maximum number of calls in flight; further ones are refused at once, with a retry delay.
    /// Calls that wait for a lock, and streams, have limits of their own.
    #[arg(long, env = "TIDINGS_MAX_IN_FLIGHT", default_value_t = Args::default().max_in_flight, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_in_flight: u32,

    /// Maximum number of open streams; further ones are refused at once, with a retry delay.
    #[arg(long, env = "TIDINGS_MAX_OPEN_STREAMS", default_value_t = Args::default().max_open_streams, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_open_streams: u32,

    /// Idle time on a connection after which the server sends a PING, e.g. `20s`; `0s` disables
    /// PINGs.
    #[arg(long, env = "TIDINGS_KEEPALIVE_INTERVAL", default_value_t = Args::default().keepalive_interval, value_name = "DURATION",
          value_parser = duration_or_zero)]
    pub keepalive_interval: humantime::Duration,

    /// Longest wait for the reply to a PING before the connection is closed, e.g. `10s`. A client
    /// that reads meanwhile, however slowly, is not disconnected.
    #[arg(long, env = "TIDINGS_KEEPALIVE_TIMEOUT", default_value_t = Args::default().keepalive_timeout, value_name = "DURATION",
          value_parser = duration)]
    pub keepalive_timeout: humantime::Duration,

    /// Longest wait for the HTTP/2 preface on a new connection before it is closed, e.g. `3s`.
    #[arg(long, env = "TIDINGS_PREFACE_TIMEOUT", default_value_t = Args::default().preface_timeout, value_name = "DURATION",
          value_parser = duration)]
    pub preface_timeout: humantime::Duration,

    /// Longest time in which a client receives no part of a response that is ready, e.g. `20s`;
    /// past it the call is reset. Streams have no such limit.
    #[arg(long, env = "TIDINGS_SEND_TIMEOUT", default_value_t = Args::default().send_timeout, value_name = "DURATION",
          value_parser = duration)]
    pub send_timeout: humantime::Duration,

    /// Age at which a connection is drained, with +/-10 % jitter, e.g. `30m`, so that clients find
    /// new instances; `0s` means never.
    #[arg(long, env = "TIDINGS_CONNECTION_AGE", default_value_t = Args::default().connection_age, value_name = "DURATION",
          value_parser = duration_or_zero)]
    pub connection_age: humantime::Duration,

    /// Longest time that calls get to finish on a connection that has reached its age, before it is
    /// cut, e.g. `30s`.
    #[arg(long, env = "TIDINGS_CONNECTION_GRACE", default_value_t = Args::default().connection_grace, value_name = "DURATION",
          value_parser = duration)]
    pub connection_grace: humantime::Duration,

    /// Time between reporting NOT_SERVING and refusing connections at shutdown, e.g. `3s`.
    #[arg(long, env = "TIDINGS_LAME_DUCK", default_value_t = Args::default().lame_duck, value_name = "DURATION",
          value_parser = duration_or_zero)]
    pub lame_duck: humantime::Duration,

    /// Longest time that calls in flight get to finish at shutdown before they are cut, e.g. `20s`.
    #[arg(long, env = "TIDINGS_DRAIN", default_value_t = Args::default().drain, value_name = "DURATION",
          value_parser = duration)]
    pub drain: humantime::Duration,

    /// Authentication of callers.
    #[command(flatten, next_help_heading = "Security")]
    pub security: security::Args,

    /// Export of trace spans.
    #[command(flatten, next_help_heading = "Traces")]
    pub traces: TraceArgs,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            admin_listen: None,
            max_connections: 4096,
            max_streams: None,
            max_in_flight: 1024,
            max_open_streams: 20_000,
            keepalive_interval: Duration::from_secs(20).into(),
            keepalive_timeout: Duration::from_secs(10).into(),
            preface_timeout: Duration::from_secs(3).into(),
            send_timeout: Duration::from_secs(20).into(), // a part has 64 KiB: 26 kbit/s
            connection_age: Duration::from_mins(30).into(),
            connection_grace: Duration::from_secs(30).into(),
            lame_duck: Duration::from_secs(3).into(),
            drain: Duration::from_secs(20).into(),
            security: security::Args::default(),
            traces: TraceArgs::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        server: super::Args,
    }

    #[test]
    fn durations_are_text_and_help_shows_defaults() {
        let parsed = Command::try_parse_from(["server", "--drain", "1500ms"]).unwrap();
        assert_eq!(parsed.server.drain.as_millis(), 1500);
        assert_eq!(parsed.server.max_connections, 4096);

        let help = <Command as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.contains("[default: 20s]"), "{help}");
    }

    #[test]
    fn zero_connections_are_rejected() {
        Command::try_parse_from(["server", "--max-connections", "0"]).unwrap_err();
    }
}
