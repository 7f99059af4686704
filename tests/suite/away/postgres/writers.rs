//! Callers that write all the time, each time under a new key, and remember what they were told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_status::Failure;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::subjects::Call;
use crate::hostile::plain::Plain;
use crate::service::SOON;

/// So many write at once.
const WRITERS: usize = 4;
/// The pause of each between two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// No call takes longer: the cap of all methods, and what a loaded machine adds.
const LONGEST: Duration = Duration::from_secs(5 + 3);

/// All that a caller may be told of a Postgres that does not do its work: codes, reasons and words, none of them the driver's.
const REFUSALS: [(Code, &str, &str); 4] = [
    (Code::Unavailable, "STORE_AWAY", "the store does not answer"),
    (Code::Unavailable, "STORE_AWAY", "the store fell silent, what was asked of it may have been done"),
    (Code::Unavailable, "STORE_AWAY", "the store has no room"),
    (Code::ResourceExhausted, "OVERLOADED", "the store is busy"),
];

/// One call that has ended.
struct Told {
    key: i32,
    begun: Instant,
    ended: Instant,
    answer: Result<(), Failure>,
}

/// The writers of one service.
pub(super) struct Writers {
    told: Arc<Mutex<Vec<Told>>>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Writers {
    pub(super) fn start(address: SocketAddr, write: fn(i32) -> Call) -> Self {
        let (told, stop) = (Arc::<Mutex<Vec<Told>>>::default(), Arc::new(AtomicBool::new(false)));
        let keys = Arc::new(AtomicI32::new(1));
        let mut running = JoinSet::new();
        for _ in 0..WRITERS {
            let (told, keys, stop) = (Arc::clone(&told), Arc::clone(&keys), Arc::clone(&stop));
            running.spawn(async move {
                let plain = Plain::connect(address).await;
                while !stop.load(Ordering::Relaxed) {
                    let (key, begun) = (keys.fetch_add(1, Ordering::Relaxed), Instant::now());
                    let answer = write(key).send(&plain).await;
                    told.lock().unwrap().push(Told { key, begun, ended: Instant::now(), answer });
                    sleep(PAUSE).await;
                }
            });
        }
        Self { told, stop, running }
    }

    /// Waits until something is acknowledged that was begun since then; returns when it was.
    pub(super) async fn acknowledged_since(&self, since: Instant) -> Instant {
        self.until("acknowledged", |told| told.answer.is_ok() && told.begun >= since).await
    }

    /// Waits until a call is refused for this reason.
    pub(super) async fn refused(&self, reason: &str) {
        let now = Instant::now();
        self.until(reason, |told| told.begun >= now && told.answer.as_ref().is_err_and(|it| it.reason == reason)).await;
    }

    async fn until(&self, what: &str, holds: impl Fn(&Told) -> bool) -> Instant {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            if let Some(told) = self.told.lock().unwrap().iter().find(|told| holds(told)) {
                return told.ended;
            }
            if Instant::now() > deadline {
                let told = self.told.lock().unwrap();
                panic!("not {what}, but {:?}", told.last().map(|told| &told.answer));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends; returns the keys of what was acknowledged, and of what was refused.
    ///
    /// # Panics
    /// If a call took too long, or was told anything that is not documented.
    pub(super) async fn stop(&mut self) -> (Vec<i32>, Vec<i32>) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
        for told in self.told.lock().unwrap().iter() {
            assert!(told.ended - told.begun < LONGEST, "{:?} for {:?}", told.ended - told.begun, told.answer);
            match &told.answer {
                Ok(()) => acknowledged.push(told.key),
                Err(failure) => {
                    let said = (failure.code, failure.reason.as_str(), failure.message.as_str());
                    assert!(REFUSALS.contains(&said) && failure.retry_after.is_some(), "{failure}");
                    refused.push(told.key);
                }
            }
        }
        (acknowledged, refused)
    }
}
