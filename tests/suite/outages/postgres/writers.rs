//! Callers that write continuously, each time under a new key, and record every result.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_status::Failure;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::services::PreparedCall;
use crate::hostile::grpc_client::GrpcClient;
use crate::service::MAX_WAIT;

/// Number of concurrent writers.
const WRITERS: usize = 4;
/// Pause of a writer between two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest duration of a call: the server's cap of 5 s, and 3 s for a loaded machine.
const MAX_DURATION: Duration = Duration::from_secs(5 + 3);

/// Every documented failure of a call whose Postgres fails; none contains the driver's own words.
const REFUSALS: [(Code, &str, &str); 4] = [
    (Code::Unavailable, "STORE_AWAY", "the store is unavailable"),
    (Code::Unavailable, "STORE_AWAY", "connection to the store lost; the transaction may have committed"),
    (Code::Unavailable, "STORE_AWAY", "the store is out of disk space or memory"),
    (Code::ResourceExhausted, "OVERLOADED", "the store is busy"),
];

/// One completed call.
struct WriteResult {
    key: i32,
    started: Instant,
    ended: Instant,
    result: Result<(), Failure>,
}

/// Concurrent writers to one service, and the results of their calls.
pub(super) struct Writers {
    results: Arc<Mutex<Vec<WriteResult>>>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Writers {
    pub(super) fn start(address: SocketAddr, write: fn(i32) -> PreparedCall) -> Self {
        let (results, stop) = (Arc::<Mutex<Vec<WriteResult>>>::default(), Arc::new(AtomicBool::new(false)));
        let keys = Arc::new(AtomicI32::new(1));
        let mut running = JoinSet::new();
        for _ in 0..WRITERS {
            let (results, keys, stop) = (Arc::clone(&results), Arc::clone(&keys), Arc::clone(&stop));
            running.spawn(async move {
                let client = GrpcClient::connect(address).await;
                while !stop.load(Ordering::Relaxed) {
                    let (key, started) = (keys.fetch_add(1, Ordering::Relaxed), Instant::now());
                    let result = write(key).send(&client).await;
                    results.lock().unwrap().push(WriteResult { key, started, ended: Instant::now(), result });
                    sleep(PAUSE).await;
                }
            });
        }
        Self { results, stop, running }
    }

    /// Waits for the success of a call that started after `since`; returns when the call ended.
    pub(super) async fn wait_for_success_since(&self, since: Instant) -> Instant {
        self.wait_for("acknowledged", |write| write.result.is_ok() && write.started >= since).await
    }

    /// Waits until a call that starts from now on is refused for this reason.
    pub(super) async fn wait_for_refusal(&self, reason: &str) {
        let now = Instant::now();
        self.wait_for(reason, |write| {
            write.started >= now && write.result.as_ref().is_err_and(|failure| failure.reason == reason)
        })
        .await;
    }

    async fn wait_for(&self, what: &str, matches: impl Fn(&WriteResult) -> bool) -> Instant {
        let deadline = Instant::now() + 2 * MAX_WAIT;
        loop {
            if let Some(write) = self.results.lock().unwrap().iter().find(|write| matches(write)) {
                return write.ended;
            }
            if Instant::now() > deadline {
                let results = self.results.lock().unwrap();
                panic!("no write is {what}; the last result is {:?}", results.last().map(|write| &write.result));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops all writers; returns the keys of acknowledged and of refused writes.
    ///
    /// # Panics
    /// If a call took too long or failed with an undocumented error.
    pub(super) async fn stop(&mut self) -> (Vec<i32>, Vec<i32>) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
        for write in self.results.lock().unwrap().iter() {
            let took = write.ended - write.started;
            assert!(took < MAX_DURATION, "{took:?} for {:?}", write.result);
            match &write.result {
                Ok(()) => acknowledged.push(write.key),
                Err(failure) => {
                    let shown = (failure.code, failure.reason.as_str(), failure.message.as_str());
                    assert!(REFUSALS.contains(&shown) && failure.retry_after.is_some(), "{failure}");
                    refused.push(write.key);
                }
            }
        }
        (acknowledged, refused)
    }
}
