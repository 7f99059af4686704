//! Streams that each have to get every message once and in order, whichever instance they are at.

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
/// Streams that share the connections of one client: fewer than a connection may have.
const TOGETHER: usize = 100;
/// Time from one message to the next.
const PACE: Duration = Duration::from_millis(100);
/// How late the last message may be.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is published last.
const END: &str = "end";

/// Streams, and who publishes what they have to get.
pub(crate) struct Listeners {
    publisher: JoinHandle<i64>,
    streams: Vec<JoinHandle<i64>>,
    over: Arc<AtomicBool>,
}

impl Listeners {
    /// Returns when all streams are open.
    pub(crate) async fn start(addresses: &str, count: usize) -> Self {
        let caught_up = Arc::new(AtomicUsize::new(0));
        let mut streams = Vec::with_capacity(count);
        for first in (0..count).step_by(TOGETHER) {
            let endpoints = Endpoints::new(&addresses.parse().unwrap());
            for _ in first..count.min(first + TOGETHER) {
                let subscription = Subscription::open(&endpoints, vec![Start::latest(CHANNEL)]);
                streams.push(tokio::spawn(listen(subscription, Arc::clone(&caught_up))));
            }
        }
        let all = async {
            while caught_up.load(Ordering::Relaxed) < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("all streams are open");
        let over = Arc::new(AtomicBool::new(false));
        let caller = Caller::new(Endpoints::new(&addresses.parse().unwrap()), Policy::default());
        let publisher = tokio::spawn(publish(caller, Arc::clone(&over)));
        Self { publisher, streams, over }
    }

    /// How many messages were published.
    ///
    /// # Panics
    /// If any stream did not get all of them.
    pub(crate) async fn end(self) -> i64 {
        self.over.store(true, Ordering::Relaxed);
        let published = self.publisher.await.unwrap();
        let heard = timeout(PATIENCE, join_all(self.streams)).await.expect("every stream gets the last message");
        for heard in heard {
            assert_eq!(heard.unwrap(), published);
        }
        published
    }
}

/// Publishes numbers until it is over, and returns how many messages that were.
async fn publish(caller: Caller, over: Arc<AtomicBool>) -> i64 {
    for number in 1.. {
        let last = over.load(Ordering::Relaxed);
        let data = if last { END.to_owned() } else { number.to_string() };
        let request_id = format!("message-{number}");
        let request =
            PublishRequest { channel: CHANNEL.to_owned(), data: data.into(), request_id, ..Default::default() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
        caller.call("Publish", &request, send).await.unwrap_or_else(|error| panic!("a publish failed: {error}"));
        if last {
            return number;
        }
        sleep(PACE).await;
    }
    unreachable!("the numbers do not end")
}

/// Reads to the end, and returns how many messages came.
async fn listen(mut subscription: Subscription, caught_up: Arc<AtomicUsize>) -> i64 {
    let mut heard = 0;
    loop {
        match subscription.next().await.unwrap() {
            Event::CaughtUp(_) => drop(caught_up.fetch_add(1, Ordering::Relaxed)),
            Event::Message(message) => {
                heard += 1;
                if message.data == END.as_bytes() {
                    return heard;
                }
                assert_eq!(message.data, heard.to_string().as_bytes());
            }
            missed @ (Event::Gap(_) | Event::Reset(_)) => panic!("{missed:?}"),
        }
    }
}
