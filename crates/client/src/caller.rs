//! Calls with timeouts, retries and a retry budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_status::Failure;
use tidings_trace::TraceParent;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::attempt::{is_retryable, with_timeout};
use crate::attempt_failure::AttemptFailure;
use crate::backoff::Backoff;
use crate::channel_pools::CallClass;
use crate::endpoints::{Endpoint, Endpoints};
use crate::error::Error;
use crate::retry_budget::RetryBudget;
use crate::trace::in_trace;

/// Timeout, total time and retry budget of calls.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Timeout of one attempt, also sent to the service as `grpc-timeout`.
    pub timeout: Duration,
    /// Longest time from the start of a call to the start of its last retry.
    pub patience: Duration,
    /// Budget of retries shared by all calls; `None` leaves only `patience` as a bound.
    pub budget: Option<RetryBudget>,
}

impl Default for Policy {
    /// The policy of a service that calls another.
    ///
    /// An attempt has 2 s, more than any healthy call takes. A call has 10 s, enough to restart an
    /// instance. The budget is new.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            budget: Some(RetryBudget::default()),
        }
    }
}

/// Sends calls that are safe to retry to the instances of one service.
///
/// Cheap to clone; clones share the connections, the retry budget and the retry count.
#[derive(Clone, Debug)]
pub struct Caller {
    endpoints: Endpoints,
    policy: Policy,
    retries: Arc<AtomicU64>,
    parent: Option<TraceParent>,
}

impl Caller {
    /// Sends calls to `endpoints` under `policy`.
    pub fn new(endpoints: Endpoints, policy: Policy) -> Self {
        Self { endpoints, policy, retries: Arc::default(), parent: None }
    }

    /// Returns a clone whose calls are children of the span `parent`.
    ///
    /// With `None`, calls belong to the current trace of their task, if it has one.
    #[must_use]
    pub fn in_trace(&self, parent: Option<TraceParent>) -> Self {
        Self { parent, ..self.clone() }
    }

    /// Returns the policy of the calls.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the number of retries of all calls so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Sends `request` until an instance responds; each retry goes to another instance, if any.
    ///
    /// Use it only for calls that are safe to retry: an attempt whose response was lost may have
    /// taken effect. `send` makes one attempt with a request whose timeout is set. `method` is the
    /// name in errors.
    ///
    /// UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED and failures of the transport are
    /// retried. Pauses double; RetryInfo makes them longer. MESSAGE_TOO_LARGE is not retried.
    ///
    /// # Errors
    /// The call may still have taken effect.
    pub async fn call<T: Clone, R>(
        &self,
        method: &'static str,
        request: &T,
        send: impl AsyncFn(Channel, Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let limit = self.policy.timeout;
        let mut call = self.start_call(method, self.policy.patience, self.policy.budget.as_ref());
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(limit);
            call.endpoint.authorize(&mut request);
            if let Some(parent) = self.parent {
                in_trace(&mut request, parent);
            }
            let slot = call.endpoint.channel_for(CallClass::Short);
            // Boxed because it is large and would be part of the future of every caller.
            let response = Box::pin(send(slot.channel(), request));
            match with_timeout(limit, response).await {
                Ok(response) => {
                    call.succeeded();
                    return Ok(response.into_inner());
                }
                Err(status) => call.retry_if_transient(&status).await?,
            }
        }
    }

    /// Picks the first instance and credits the budget.
    pub(crate) fn start_call<'a>(
        &'a self,
        method: &'static str,
        patience: Duration,
        budget: Option<&'a RetryBudget>,
    ) -> PendingCall<'a> {
        if let Some(budget) = budget {
            budget.deposit();
        }
        let endpoint = self.endpoints.pick();
        let begin = Instant::now();
        PendingCall { caller: self, method, patience, budget, endpoint, begin, attempts: 1, backoff: Backoff::new() }
    }
}

/// A call in flight: its current instance, and the state of its retries.
#[derive(Debug)]
pub(crate) struct PendingCall<'a> {
    caller: &'a Caller,
    method: &'static str,
    patience: Duration,
    budget: Option<&'a RetryBudget>,
    /// Instance of the current attempt.
    pub(crate) endpoint: Arc<Endpoint>,
    begin: Instant,
    attempts: u32,
    backoff: Backoff,
}

impl PendingCall<'_> {
    /// Records that the instance responded.
    pub(crate) fn succeeded(&self) {
        self.endpoint.record_success();
    }

    /// Waits for the next attempt and picks another instance, if `status` is transient.
    ///
    /// # Errors
    /// A retry would be refused too, or the patience or the budget is exhausted.
    pub(crate) async fn retry_if_transient(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        if is_retryable(&failure) {
            return self.retry(status).await;
        }
        self.endpoint.record_failure(&failure);
        let address = self.endpoint.address().clone();
        Err(Error::Refused { method: self.method, address, failure: Box::new(failure) })
    }

    /// Waits for the next attempt and picks another instance, without a check of `status`.
    ///
    /// # Errors
    /// The patience or the budget is exhausted.
    pub(crate) async fn retry(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        self.endpoint.record_failure(&failure);
        let pause = self.backoff.pause(failure.retry_after);
        let too_long = self.begin.elapsed() + pause > self.patience;
        if too_long || self.budget.is_some_and(|budget| !budget.try_withdraw()) {
            let last = Box::new(AttemptFailure::new(status, self.endpoint.address()));
            let elapsed = whole_millis(self.begin.elapsed());
            return Err(Error::GaveUp { method: self.method, last, attempts: self.attempts, elapsed });
        }
        self.caller.retries.fetch_add(1, Ordering::Relaxed);
        sleep(pause).await;
        self.attempts += 1;
        self.endpoint = self.caller.endpoints.pick_other_than(Some(&self.endpoint));
        Ok(())
    }
}

/// Truncates to milliseconds, which is precise enough for messages.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidings_proto::lock::ReleaseLockRequest;
    use tidings_proto::lock::lock_service_client::LockServiceClient;
    use tidings_status::Reply;
    use tonic::Code;

    use super::*;
    use crate::fake::endpoints;
    use crate::fake::locks::FakeLocks;

    fn caller(addresses: &str, policy: Policy) -> Caller {
        Caller::new(Endpoints::new(&addresses.parse().unwrap()), policy)
    }

    fn patient() -> Caller {
        let patience = Duration::from_mins(1);
        caller("127.0.0.1:1", Policy { timeout: Duration::from_secs(5), patience, budget: None })
    }

    /// Makes a call whose attempts fail with `failures` in turn, then returns their number.
    async fn run(caller: &Caller, failures: Vec<Status>) -> Result<usize, Error> {
        let count = failures.len();
        let failures = Mutex::new(failures.into_iter());
        let send = async |_: Channel, _: Request<()>| match failures.lock().unwrap().next() {
            Some(status) => Err(status),
            None => Ok(Response::new(count)),
        };
        caller.call("Test", &(), send).await
    }

    fn reasoned(code: Code, delay: Option<Duration>) -> Status {
        let reply = Reply::new(code, "test.tidings", "SOME_REASON", "test");
        match delay {
            Some(delay) => reply.retry_after(delay).into_status(),
            None => reply.into_status(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_retried_and_counted() {
        let caller = patient();
        let failures = vec![
            Status::unavailable("a"),
            reasoned(Code::ResourceExhausted, None),
            Status::unknown("transport error"),
            Status::deadline_exceeded("late"),
        ];

        assert_eq!(run(&caller, failures).await.unwrap(), 4);
        assert_eq!(caller.retries(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_retried() {
        let caller = patient();

        for status in [reasoned(Code::Internal, None), Status::not_found("no"), Status::invalid_argument("bad")] {
            let error = run(&caller, vec![status.clone()]).await.unwrap_err();
            assert_eq!(error.precondition_failure().is_some(), status.code() == Code::NotFound);
            assert_eq!(error.has_reason("SOME_REASON"), status.code() == Code::Internal);
            assert!(error.to_string().starts_with("Test at 127.0.0.1:1: "), "{error}");
        }
        assert_eq!(caller.retries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_for_retry_after() {
        let begin = Instant::now();

        run(&patient(), vec![reasoned(Code::Unavailable, Some(Duration::from_secs(10)))]).await.unwrap();

        assert!((10..16).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_given_up_when_its_patience_ends() {
        let caller = patient();

        let error = run(&caller, vec![Status::unavailable("down"); 99]).await.unwrap_err();

        assert!(error.to_string().contains("Test: UNAVAILABLE: down\n  gave up after"), "{error}");
        assert!(matches!(error, Error::GaveUp { elapsed, .. } if (50..=60).contains(&elapsed.as_secs())), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_beyond_the_patience_is_not_waited_for() {
        let begin = Instant::now();

        let status = reasoned(Code::Unavailable, Some(Duration::from_hours(1)));
        let error = run(&patient(), vec![status]).await.unwrap_err();

        assert!(error.to_string().contains("gave up after 1 attempt in 0s"), "{error}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_budget_is_empty_the_last_error_is_returned_at_once() {
        let budget = RetryBudget::default();
        while budget.try_withdraw() {}
        let caller = caller("127.0.0.1:1", Policy { budget: Some(budget), ..Policy::default() });
        let begin = Instant::now();

        let error = run(&caller, vec![Status::unavailable("down")]).await.unwrap_err();

        assert!(matches!(error, Error::GaveUp { attempts: 1, .. }), "{error}");
        assert_eq!((begin.elapsed(), caller.retries()), (Duration::ZERO, 0));
    }

    /// Concurrent calls that advance the round-robin do not change that.
    #[tokio::test(start_paused = true)]
    async fn each_attempt_goes_to_another_instance() {
        let caller = caller("a:1,b:1", Policy::default());
        let mut call = caller.start_call("Test", Duration::from_mins(1), None);
        let mut picked = Vec::new();

        for _ in 0..9 {
            picked.push(call.endpoint.address().to_string());
            caller.endpoints.pick(); // a concurrent call
            call.retry_if_transient(&reasoned(Code::ResourceExhausted, None)).await.unwrap();
        }

        assert!(picked.windows(2).all(|two| two[0] != two[1]), "{picked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_carries_its_timeout() {
        let send = async |_: Channel, request: Request<()>| {
            assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "5000000u");
            Ok(Response::new(()))
        };
        let caller = patient();

        // Services call from spawned tasks, so the future must be `Send`.
        tokio::spawn(async move { caller.call("Test", &(), send).await }).await.unwrap().unwrap();
    }

    /// Calls skip the failed instance; one call a second probes it.
    #[tokio::test(start_paused = true)]
    async fn a_failed_instance_costs_one_retry_a_second() {
        let locks = FakeLocks::new();
        let (a, b) = (locks.instance("a"), locks.instance("b"));
        let caller = Caller::new(endpoints([&a, &b]), Policy::default());
        a.kill();

        for _ in 0..1_000 {
            let send = async |channel, request| LockServiceClient::new(channel).release_lock(request).await;
            caller.call("ReleaseLock", &ReleaseLockRequest::default(), send).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }

        assert!((9..=11).contains(&caller.retries()), "{} in 10 s", caller.retries());
    }
}
