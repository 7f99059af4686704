//! A subscription over streams in memory that do what the test wants, in virtual time.

mod content;
mod streams;

use super::*;
use crate::fake::channels::{Channels, Step, message, messages};
use crate::fake::endpoints;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn away() -> Status {
    Status::unavailable("the connection was cut")
}

fn position(offset: i64) -> Position {
    Position { epoch: "e".into(), offset }
}

/// A subscription to `c` from its latest on, over two instances.
fn open(channels: &Channels) -> Subscription {
    open_at(channels, Start::latest("c"))
}

fn open_at(channels: &Channels, start: Start) -> Subscription {
    Subscription::open(&endpoints([&channels.instance("a"), &channels.instance("b")]), vec![start])
}

/// What comes next, so many times.
async fn events(subscription: &mut Subscription, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(subscription.next().await.unwrap());
    }
    events
}

fn told(offsets: impl IntoIterator<Item = i64>) -> Vec<Event> {
    offsets.into_iter().map(|offset| Event::Message(message(offset))).collect()
}
