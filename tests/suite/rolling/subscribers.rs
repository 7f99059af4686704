//! Streams that must each receive every message once and in order, on any instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidings_client::{Caller, Endpoints, Event, Policy, Start, Subscription};
use tidings_proto::broadcast::PublishRequest;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const CHANNEL: &str = "news";
/// Streams that share the connections of one client, below the limit of a connection.
const STREAMS_PER_CLIENT: usize = 100;
/// Interval between two messages.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for all streams to open, or to receive the last message.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Content of the last message.
const LAST_MESSAGE: &str = "end";

/// Streams, and the publisher of their messages.
pub(crate) struct Subscribers {
    publisher: JoinHandle<i64>,
    streams: Vec<JoinHandle<i64>>,
    stop: Arc<AtomicBool>,
}

impl Subscribers {
    /// Opens all streams, then starts the publisher.
    pub(crate) async fn start(addresses: &str, count: usize) -> Self {
        let caught_up = Arc::new(AtomicUsize::new(0));
        let mut streams = Vec::with_capacity(count);
        for first in (0..count).step_by(STREAMS_PER_CLIENT) {
            let endpoints = Endpoints::new(&addresses.parse().unwrap());
            for _ in first..count.min(first + STREAMS_PER_CLIENT) {
                let subscription = Subscription::open(&endpoints, vec![Start::latest(CHANNEL)]);
                streams.push(tokio::spawn(receive_until_end(subscription, Arc::clone(&caught_up))));
            }
        }
        let all = async {
            while caught_up.load(Ordering::Relaxed) < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, all).await.expect("all streams are open");
        let stop = Arc::new(AtomicBool::new(false));
        let caller = Caller::new(Endpoints::new(&addresses.parse().unwrap()), Policy::default());
        let publisher = tokio::spawn(publish(caller, Arc::clone(&stop)));
        Self { publisher, streams, stop }
    }

    /// Publishes the last message and waits for it; returns the number of messages.
    ///
    /// # Panics
    /// If a stream has not received every message.
    pub(crate) async fn end(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        let published = self.publisher.await.unwrap();
        let received = timeout(TIMEOUT, join_all(self.streams)).await.expect("every stream gets the last message");
        for received in received {
            assert_eq!(received.unwrap(), published);
        }
        published
    }
}

/// Publishes 1, 2, 3 and so on until `stop` is set; returns the number of messages.
async fn publish(caller: Caller, stop: Arc<AtomicBool>) -> i64 {
    for number in 1.. {
        let last = stop.load(Ordering::Relaxed);
        let data = if last { LAST_MESSAGE.to_owned() } else { number.to_string() };
        let request_id = format!("message-{number}");
        let request =
            PublishRequest { channel: CHANNEL.to_owned(), data: data.into(), request_id, ..Default::default() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
        caller.call("Publish", &request, send).await.unwrap_or_else(|error| panic!("a publish failed: {error}"));
        if last {
            return number;
        }
        sleep(PUBLISH_INTERVAL).await;
    }
    unreachable!("the numbers do not end")
}

/// Receives messages up to the last one; returns their number.
async fn receive_until_end(mut subscription: Subscription, caught_up: Arc<AtomicUsize>) -> i64 {
    let mut received = 0;
    loop {
        match subscription.next().await.unwrap() {
            Event::CaughtUp(_) => drop(caught_up.fetch_add(1, Ordering::Relaxed)),
            Event::Message(message) => {
                received += 1;
                if message.data == LAST_MESSAGE.as_bytes() {
                    return received;
                }
                assert_eq!(message.data, received.to_string().as_bytes());
            }
            missed @ (Event::Gap(_) | Event::Reset(_)) => panic!("{missed:?}"),
        }
    }
}
