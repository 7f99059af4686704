//! Acquires a lock, with retries.

use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Outcome;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, AcquireLockResponse, ErrorReason, Holder};
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::{Request, Status};
use uuid::Uuid;

use super::boot_instant::BootInstant;
use super::lease_state::LeaseState;
use super::renewer::Lease;
use super::{LockGuard, from_proto, to_proto};
use crate::attempt::with_timeout;
use crate::caller::{Caller, PendingCall};
use crate::channel_pools::CallClass;
use crate::error::Error;

/// Default lease duration of the service.
const TTL: Duration = Duration::from_secs(10);

/// Parameters of an acquire.
#[derive(Clone, Debug)]
pub struct AcquireOptions {
    /// Name of the lock, e.g. `orders/42`.
    pub name: String,
    /// Display name of the holder, e.g. `billing-1`.
    pub owner: String,
    /// Lease duration, 1 s to 300 s. A lock stays held for this long after its holder died.
    pub ttl: Duration,
    /// Longest wait for the lock, at most 60 s; zero means no wait.
    pub wait: Duration,
    /// Idempotency key of this acquire. A retry with the same key, also by another process, gets
    /// the same hold. `None` generates a key.
    pub request_id: Option<String>,
}

impl AcquireOptions {
    /// Options for the lock `name` with a lease of 10 s and no wait.
    pub fn new(name: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { name: name.into(), owner: owner.into(), ttl: TTL, wait: Duration::ZERO, request_id: None }
    }

    fn request(&self, request_id: &str, wait: Duration) -> AcquireLockRequest {
        AcquireLockRequest {
            name: self.name.clone(),
            owner: self.owner.clone(),
            ttl: Some(to_proto(self.ttl)),
            wait: Some(to_proto(wait)),
            request_id: request_id.to_owned(),
            ..Default::default()
        }
    }
}

/// Outcome of an acquire.
#[derive(Debug)]
pub enum Acquisition {
    /// The lock was granted.
    Granted(LockGuard),
    /// Another owner holds the lock, and `wait` was zero.
    Held {
        /// The current holder, at most one. Empty while the lock is being granted to a waiter.
        blockers: Vec<Holder>,
        /// Length of the wait queue.
        waiting: i64,
    },
    /// The lock was not granted within `wait`.
    TimedOut {
        /// The current holder, at most one. Empty while the lock changes hands, and in a
        /// quarantine.
        blockers: Vec<Holder>,
        /// Last position in the wait queue; 1 is next, 0 means not queued.
        position: i64,
    },
}

impl LockGuard {
    /// Acquires a lock, with retries.
    ///
    /// An attempt whose response is lost is retried at another instance, if any, with the same
    /// request id. It keeps its hold or its position in the wait queue, and waits only for the rest
    /// of `wait`. If this future is dropped, the service frees a lock granted meanwhile, at the
    /// latest when its lease expires.
    ///
    /// # Errors
    /// The lock may have been granted; it is then free again when its lease expires.
    pub async fn acquire(caller: &Caller, options: AcquireOptions) -> Result<Acquisition, Error> {
        let policy = caller.policy();
        let begin = Instant::now();
        let class = if options.wait.is_zero() { CallClass::Short } else { CallClass::Waiting };
        let mut request_id = options.request_id.clone().unwrap_or_else(new_id);
        let mut call = caller.start_call("AcquireLock", policy.patience + options.wait, policy.budget.as_ref());
        loop {
            let wait = options.wait.saturating_sub(begin.elapsed());
            let limit = wait + policy.timeout;
            let mut request = Request::new(options.request(&request_id, wait));
            request.set_timeout(limit);
            call.endpoint.authorize(&mut request);
            let slot = call.endpoint.channel_for(class);
            let mut service = LockServiceClient::new(slot.channel());
            // Taken before sending, so the lease ends here no later than at the service.
            let sent = BootInstant::now();
            // Boxed because it is large and would be part of the future of every caller.
            let response = Box::pin(service.acquire_lock(request));
            match with_timeout(limit, response).await.map(tonic::Response::into_inner) {
                Ok(response) => match read_response(response, sent, caller, &options) {
                    Ok(acquired) => {
                        call.succeeded();
                        return Ok(acquired);
                    }
                    Err(problem) => call.retry(&Status::unavailable(problem)).await?,
                },
                Err(status) => {
                    if retry_acquire(&mut call, &status, options.request_id.is_none()).await? {
                        request_id = new_id();
                    }
                }
            }
        }
    }
}

/// Interprets a response.
///
/// # Errors
/// The reason why the response cannot be used; the acquire must be retried.
fn read_response(
    response: AcquireLockResponse,
    sent: BootInstant,
    caller: &Caller,
    options: &AcquireOptions,
) -> Result<Acquisition, &'static str> {
    match response.outcome {
        Some(Outcome::Granted(grant)) => {
            let deadline = sent + from_proto(grant.waited) + from_proto(grant.lease);
            let (name, ttl, state) = (options.name.clone(), options.ttl, LeaseState::new(deadline));
            if deadline.remaining().is_zero() {
                return Err("the lease expired before its response arrived");
            }
            Ok(Acquisition::Granted(LockGuard::new(Lease { caller: caller.clone(), name, ttl, grant, state })))
        }
        // A retry with no wait left: the attempts before it used up the wait.
        Some(Outcome::Held(held)) if !options.wait.is_zero() => {
            Ok(Acquisition::TimedOut { blockers: held.blockers, position: 0 })
        }
        Some(Outcome::Held(held)) => Ok(Acquisition::Held { blockers: held.blockers, waiting: held.waiting }),
        Some(Outcome::TimedOut(late)) => Ok(Acquisition::TimedOut { blockers: late.blockers, position: late.position }),
        None => Err("response without an outcome"),
    }
}

/// Waits for the next attempt. Returns true if it needs a new request id.
async fn retry_acquire(call: &mut PendingCall<'_>, status: &Status, own_id: bool) -> Result<bool, Error> {
    match ErrorReason::of_text(&Failure::from(status).reason) {
        // An earlier attempt was granted the lock, and its lease ended before a response arrived.
        Some(ErrorReason::LeaseOver) if own_id => call.retry(status).await.map(|()| true),
        // An earlier attempt arrived late and replaced this one; its response has no reader.
        Some(ErrorReason::TakenOver) => call.retry(status).await.map(|()| false),
        _ => call.retry_if_transient(status).await.map(|()| false),
    }
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}
