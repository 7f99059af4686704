//! Subscribes to a channel, and resumes where it stopped, also after `kill -9`.
//!
//! Appends each message to a file, one line each: epoch, offset, text. The last line is therefore
//! the position to resume from, and no message is missing or handled twice. A consumer with a
//! database stores the position in the transaction of its effects.
//!
//! The client continues at another instance when one fails. Messages that cannot be delivered are
//! reported in their place, also after a restart: a `Gap` if the service keeps them no longer, a
//! `Reset` if it has lost the channel. Load the current state then, and go on.
//!
//! Beside a running `make up`, with `tidings channel pub orders/eu 'order 42 is paid'` in another
//! terminal:
//!
//! ```console
//! $ cargo run --quiet -p tidings-client --example subscribe -- orders/eu orders.txt
//! caught up with orders/eu
//! 1 order 42 is paid
//! ```
//!
//! `TIDINGS_BROADCAST_ADDR` holds the addresses of the instances, by default `127.0.0.1:7404`.

#![expect(clippy::print_stdout, reason = "the result of the example")]

use std::env;
use std::fs::File;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};
use tidings_client::{Endpoints, Event, Start, Subscription};
use tidings_proto::broadcast::Position;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let (channel, path) = arguments.next().zip(arguments.next()).context("usage: subscribe CHANNEL FILE")?;
    let mut file = File::options().read(true).append(true).create(true).open(&path).with_context(|| path.clone())?;
    let start = match last_position(&mut file).with_context(|| path.clone())? {
        Some(position) => Start::after(&channel, position),
        None => Start::last(&channel, 1_000), // all that the service keeps
    };

    let addresses = env::var("TIDINGS_BROADCAST_ADDR").unwrap_or_else(|_| "127.0.0.1:7404".to_owned());
    let mut subscription = Subscription::open(&Endpoints::new(&addresses.parse()?), vec![start]);
    loop {
        let text = match subscription.next().await? {
            Event::Message(message) => String::from_utf8_lossy(&message.data).into_owned(),
            Event::Gap(gap) => format!("missing: {} to {}", gap.first_offset, gap.last_offset),
            Event::Reset(_) => "missing: an unknown number of messages".to_owned(),
            Event::CaughtUp(_) => {
                println!("caught up with {channel}");
                continue;
            }
        };
        // The position after the event: known, because each of these events moves it.
        let Some(Position { epoch, offset }) = subscription.position(&channel) else { continue };
        let text = text.escape_debug(); // without line breaks
        file.write_all(format!("{epoch} {offset} {text}\n").as_bytes())?;
        println!("{offset} {text}");
    }
}

/// Returns the position in the last line of the file, `None` if it is empty. Cuts off a line whose
/// write was interrupted: its message is delivered again.
fn last_position(file: &mut File) -> anyhow::Result<Option<Position>> {
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    file.set_len(end as u64)?;
    let content = String::from_utf8_lossy(&content[..end]);
    let Some(line) = content.lines().last() else { return Ok(None) };
    match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        [epoch, offset, _] => Ok(Some(Position { epoch: epoch.to_owned(), offset: offset.parse()? })),
        _ => bail!("the last line has no position: {line}"),
    }
}
