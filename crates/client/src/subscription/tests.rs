//! Subscriptions over scripted in-memory streams, in virtual time.

mod content;
mod streams;

use super::*;
use crate::fake::channels::{FakeChannels, StreamStep, message, messages};
use crate::fake::endpoints;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn down() -> Status {
    Status::unavailable("the connection was cut")
}

fn position(offset: i64) -> Position {
    Position { epoch: "e".into(), offset }
}

/// Subscribes to `c` from its latest message on, over two instances.
fn open(channels: &FakeChannels) -> Subscription {
    open_at(channels, Start::latest("c"))
}

fn open_at(channels: &FakeChannels, start: Start) -> Subscription {
    Subscription::open(&endpoints([&channels.instance("a"), &channels.instance("b")]), vec![start])
}

/// Returns the next `count` events.
async fn events(subscription: &mut Subscription, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(subscription.next().await.unwrap());
    }
    events
}

fn message_events(offsets: impl IntoIterator<Item = i64>) -> Vec<Event> {
    offsets.into_iter().map(|offset| Event::Message(message(offset))).collect()
}
