//! `tidings channel sub`.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use tidings_client::{Addresses, Event, Start, Subscription};
use tidings_proto::broadcast::Position;
use tokio::signal::ctrl_c;

use super::Error;
use super::show::Shown;
use crate::address::{BROADCAST_ADDRESS, BROADCAST_VARIABLE};
use crate::cli::{self, Output};
use crate::{credentials, out};

const MORE: &str = "\
A line of the table is: offset, time, data; first the channel if there are
several. Data are shown as text if they can be, else as base64. Messages of a
conversation, which the history service publishes on conversation/ID, are shown
as: seq, sender, text. What is missing is said on standard error.

With json and jsonl each object has one of message, caughtUp, gap and reset; a
message has text or decoded beside it if its data are text or known.

It goes on across restarts of instances, each message once and in order, until
--count messages have come, Ctrl-C, or nobody reads its output any more.

Examples:
  tidings channel sub orders/eu orders/us
  tidings channel sub orders/eu --last 10 --count 10
  tidings channel sub orders/eu --from 5f3a9c01:41 --output jsonl
  tidings channel sub conversation/lobby";

/// Listen to channels, and print each message as it comes.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The channels, 1 to 256
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,

    /// Begin with the last messages of each channel that are kept, 1 to 1000; else with what comes now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), conflicts_with = "from")]
    last: Option<i32>,

    /// Begin behind a position of the channel
    #[arg(long, value_name = "EPOCH:OFFSET")]
    from: Option<Behind>,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Where the broadcast service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = BROADCAST_VARIABLE, default_value = BROADCAST_ADDRESS)]
    addr: Addresses,

    /// Longest time without any instance that answers, e.g. 10s or 1h; then it ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = cli::duration)]
    timeout: Duration,

    /// How to print the messages
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// Where a channel is to begin: behind this.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind {
    epoch: String,
    offset: i64,
}

impl FromStr for Behind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected EPOCH:OFFSET as a message has them, e.g. 5f3a9c01:41";
        let (epoch, offset) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0).ok_or(EXPECTED)?;
        Ok(Self { epoch: epoch.to_owned(), offset })
    }
}

/// Listens until enough has come.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let shown = Shown::new(args.output, args.channels.len() > 1);
    let endpoints = args.credentials.endpoints(&args.addr)?;
    let mut subscription = Subscription::open(&endpoints, starts(&args)?).with_patience(args.timeout);
    let mut missing = args.count.map(NonZeroU64::get);
    while missing != Some(0) {
        let event = tokio::select! {
            event = subscription.next() => event?,
            stop = ctrl_c() => return stop.map_err(Error::Signals),
        };
        if matches!(event, Event::Message(_)) {
            missing = missing.map(|missing| missing - 1);
        }
        match (shown.event(&event), &event, args.output) {
            (text, Event::CaughtUp(_) | Event::Gap(_) | Event::Reset(_), Output::Table) => out::note(text),
            (text, _, _) if out::stream(&text) => {}
            _ => return Ok(()), // nobody reads any more
        }
    }
    Ok(())
}

fn starts(args: &Args) -> Result<Vec<Start>, Error> {
    if args.from.is_some() && args.channels.len() > 1 {
        return Err(Error::FromOfSeveral(args.channels.len()));
    }
    let start = |channel: &String| match (&args.from, args.last) {
        (Some(Behind { epoch, offset }), _) => {
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
    fn a_position_is_an_epoch_and_an_offset() {
        assert_eq!("5f:3a:41".parse(), Ok(Behind { epoch: "5f:3a".into(), offset: 41 }));
        assert_eq!(":0".parse(), Ok(Behind { epoch: String::new(), offset: 0 }), "that of a channel that had none");
        for text in ["41", "5f:", "5f:-1", "5f:x"] {
            assert!(text.parse::<Behind>().is_err(), "{text}");
        }
    }
}
