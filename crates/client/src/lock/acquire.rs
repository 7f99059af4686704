//! Asks for a lock until it is granted or not.

use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Outcome;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, AcquireLockResponse, Holder};
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::{Request, Status};
use uuid::Uuid;

use super::belief::Belief;
use super::keeper::Lease;
use super::moment::Moment;
use super::{LockGuard, length, wire};
use crate::attempt::within;
use crate::caller::{Caller, Error, Tries};

/// The lease that the service gives to whoever asks for none in particular.
const TTL: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct AcquireOptions {
    /// The lock, e.g. `orders/42`.
    pub name: String,
    /// What the holder calls itself, for people.
    pub owner: String,
    /// How long the lease lasts without being renewed, 1 s to 300 s: how long others wait if the holder dies.
    pub ttl: Duration,
    /// How long to wait for the lock, at most 60 s; zero means not at all.
    pub wait: Duration,
    /// What names this acquire, if a repeat by another process is to find the same hold; else it gets a name of its own.
    pub request_id: Option<String>,
}

impl AcquireOptions {
    /// Asks for the lock `name` for 10 s at a time, without waiting for it.
    pub fn new(name: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { name: name.into(), owner: owner.into(), ttl: TTL, wait: Duration::ZERO, request_id: None }
    }

    fn request(&self, request_id: &str, wait: Duration) -> AcquireLockRequest {
        AcquireLockRequest {
            name: self.name.clone(),
            owner: self.owner.clone(),
            ttl: Some(wire(self.ttl)),
            wait: Some(wire(wait)),
            request_id: request_id.to_owned(),
            ..Default::default()
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Acquired {
    /// The lock is held.
    Granted(LockGuard),
    /// Somebody else holds it, and it was not to be waited for.
    Held {
        /// Who: at most one; none if it has just been handed to somebody who waits.
        blockers: Vec<Holder>,
        /// How many wait for it.
        waiting: i64,
    },
    /// It was waited for in vain.
    TimedOut {
        /// Who holds it: at most one; none if it has just been handed on, or if nobody is granted anything now.
        blockers: Vec<Holder>,
        /// The place in the queue that was given up, 1: next; 0 if there was none.
        position: i64,
    },
}

impl LockGuard {
    /// Asks for a lock until it is granted or not.
    ///
    /// An attempt whose answer is lost is repeated, at another instance if there is one, without losing the hold or the place
    /// in the queue; repeats wait only for what is left of `wait`. If this is dropped before it is done, the service frees
    /// what it may have granted meanwhile, at the latest when its lease has run out.
    ///
    /// # Errors
    /// The lock may have been granted; then it is free again when its lease has run out.
    pub async fn acquire(caller: &Caller, options: AcquireOptions) -> Result<Acquired, Error> {
        let policy = caller.policy();
        let begin = Instant::now();
        let mut request_id = options.request_id.clone().unwrap_or_else(new_id);
        let mut tries = caller.tries("AcquireLock", policy.patience + options.wait, policy.budget.as_ref());
        loop {
            let wait = options.wait.saturating_sub(begin.elapsed());
            let limit = wait + policy.timeout;
            let mut request = Request::new(options.request(&request_id, wait));
            request.set_timeout(limit);
            tries.endpoint.authorize(&mut request);
            let mut service = LockServiceClient::new(tries.endpoint.channel());
            // Before it is sent: the lease can not end earlier at the service than by this clock.
            let sent = Moment::now();
            // Boxed, because it is large, and part of every future that acquires.
            let answer = Box::pin(service.acquire_lock(request));
            match within(limit, answer).await.map(tonic::Response::into_inner) {
                Ok(answer) => match conclude(answer, sent, caller, &options) {
                    Ok(acquired) => {
                        tries.answered();
                        return Ok(acquired);
                    }
                    Err(useless) => tries.again(&Status::unavailable(useless)).await?,
                },
                Err(status) => {
                    if failed(&mut tries, &status, options.request_id.is_none()).await? {
                        request_id = new_id();
                    }
                }
            }
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// Why it is of no use.
fn conclude(
    answer: AcquireLockResponse,
    sent: Moment,
    caller: &Caller,
    options: &AcquireOptions,
) -> Result<Acquired, &'static str> {
    match answer.outcome {
        Some(Outcome::Granted(grant)) => {
            let deadline = sent + length(grant.waited) + length(grant.lease);
            let (name, ttl, belief) = (options.name.clone(), options.ttl, Belief::new(deadline));
            if deadline.remaining().is_zero() {
                return Err("the lease was over before its answer came");
            }
            Ok(Acquired::Granted(LockGuard::new(Lease { caller: caller.clone(), name, ttl, grant, belief })))
        }
        // A repeat that had no time left to wait: the attempts before it waited.
        Some(Outcome::Held(held)) if !options.wait.is_zero() => {
            Ok(Acquired::TimedOut { blockers: held.blockers, position: 0 })
        }
        Some(Outcome::Held(held)) => Ok(Acquired::Held { blockers: held.blockers, waiting: held.waiting }),
        Some(Outcome::TimedOut(late)) => Ok(Acquired::TimedOut { blockers: late.blockers, position: late.position }),
        None => Err("an answer without an outcome"),
    }
}

/// Waits until it is time for another attempt. Returns whether that is a new request.
async fn failed(tries: &mut Tries<'_>, status: &Status, own_id: bool) -> Result<bool, Error> {
    match Failure::from(status).reason.as_str() {
        // An earlier attempt was granted the lock, and its hold ended before anybody heard of it.
        "LEASE_OVER" if own_id => tries.again(status).await.map(|()| true),
        // An earlier attempt arrived late and took the place of this one; nobody listens to it any more.
        "TAKEN_OVER" => tries.again(status).await.map(|()| false),
        _ => tries.failed(status).await.map(|()| false),
    }
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}
