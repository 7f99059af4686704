//! `tidings channel sub`: subscribes to channels and prints their events.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use tidings_client::{Addresses, Event, Start, Subscription};
use tidings_proto::broadcast::Position;
use tokio::signal::unix::{SignalKind, signal};

use super::error::Error;
use super::show::EventFormatter;
use crate::address::{BROADCAST_ADDRESS, BROADCAST_VARIABLE};
use crate::args::{self, Output};
use crate::{credentials, out};

const MORE: &str = "\
Output:
  table        one line for each message: offset, time, data; with several
               channels, the channel comes first. Data are printed as text if
               possible, else as base64. Messages that the history service
               publishes on conversation/ID are printed as seq, sender, text.
               Gaps and resets are reported on standard error.
  json, jsonl  one object for each event, with one of message, caughtUp, gap
               and reset. Beside a message, `text` holds its data if they are
               text, `decoded` if they are a message of the history service.

The subscription survives restarts of instances: each message is printed once
and in order, until --count messages, Ctrl-C, or the end of the reader of
standard output.

Examples:
  tidings channel sub orders/eu orders/us
  tidings channel sub orders/eu --last 10 --count 10
  tidings channel sub orders/eu --from 5f3a9c01:41 --output jsonl
  tidings channel sub conversation/lobby";

/// Subscribe to channels, and print each message as it arrives
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Channel names, 1 to 256
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,

    /// Start with the last N retained messages of each channel, 1 to 1000; by default only new
    /// messages are printed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), conflicts_with = "from")]
    last: Option<i32>,

    /// Start after this position of the channel
    #[arg(long, value_name = "EPOCH:OFFSET")]
    from: Option<SubscribeStart>,

    /// Stop after N messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Address of the broadcast service, HOST:PORT or https://HOST:PORT; several separated by
    /// commas
    #[arg(long, value_name = "ADDRESS", env = BROADCAST_VARIABLE, default_value = BROADCAST_ADDRESS)]
    addr: Addresses,

    /// Longest time without a reachable instance, e.g. 10s or 1h; then exit with code 3
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// The position after which a subscription starts, parsed from `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SubscribeStart {
    epoch: String,
    offset: i64,
}

impl FromStr for SubscribeStart {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected EPOCH:OFFSET of a message, e.g. 5f3a9c01:41";
        let (epoch, offset) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0).ok_or(EXPECTED)?;
        Ok(Self { epoch: epoch.to_owned(), offset })
    }
}

/// Prints events until `--count` messages, Ctrl-C, or a closed pipe.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let formatter = EventFormatter::new(args.output, args.channels.len() > 1);
    let endpoints = args.credentials.endpoints(&args.addr)?;
    let mut subscription = Subscription::open(&endpoints, starts(&args)?).with_patience(args.timeout);
    // Created once: a signal that arrives while an event is printed must not be lost.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let mut remaining = args.count.map(NonZeroU64::get);
    while remaining != Some(0) {
        let event = tokio::select! {
            event = subscription.next() => event?,
            _ = interrupts.recv() => return Ok(()),
        };
        if matches!(event, Event::Message(_)) {
            remaining = remaining.map(|remaining| remaining - 1);
        }
        match (formatter.event(&event), &event, args.output) {
            (text, Event::CaughtUp(_) | Event::Gap(_) | Event::Reset(_), Output::Table) => out::note(text),
            (text, _, _) if out::stream(&text) => {}
            _ => return Ok(()), // the reader closed the pipe
        }
    }
    Ok(())
}

fn starts(args: &Args) -> Result<Vec<Start>, Error> {
    if args.from.is_some() && args.channels.len() > 1 {
        return Err(Error::FromOfSeveral(args.channels.len()));
    }
    let start = |channel: &String| match (&args.from, args.last) {
        (Some(SubscribeStart { epoch, offset }), _) => {
            Start::after(channel, Position { epoch: epoch.clone(), offset: *offset })
        }
        (None, Some(last)) => Start::last(channel, last),
        (None, None) => Start::latest(channel),
    };
    Ok(args.channels.iter().map(start).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_parsed_as_epoch_and_offset() {
        assert_eq!("5f:3a:41".parse(), Ok(SubscribeStart { epoch: "5f:3a".into(), offset: 41 }));
        assert_eq!(
            ":0".parse(),
            Ok(SubscribeStart { epoch: String::new(), offset: 0 }),
            "position of a channel without messages"
        );
        for text in ["41", "5f:", "5f:-1", "5f:x"] {
            assert!(text.parse::<SubscribeStart>().is_err(), "{text}");
        }
    }
}
