//! Repeats calls until they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_status::Failure;
use tidings_trace::TraceParent;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::address::Address;
use crate::attempt::{within, worth_repeating};
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::endpoints::{Endpoint, Endpoints};
use crate::refusal::Refusal;
use crate::trace::in_trace;

/// How long an attempt, and all attempts of one call, may take.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long one attempt waits for its answer; the service is told.
    pub timeout: Duration,
    /// How long a call may go on failing before it is given up.
    pub patience: Duration,
    /// What bounds the repeats of all calls together; nothing if they have to be answered whatever it takes.
    pub budget: Option<Budget>,
}

impl Default for Policy {
    /// For a service that calls another: 2 s for an answer, which is more than any healthy call takes; 10 s in all, in which
    /// an instance is restarted; a budget of its own.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2), patience: Duration::from_secs(10), budget: Some(Budget::default()) }
    }
}

/// Sends calls that are safe to repeat to the instances of one service. Cheap to clone; clones share the connections, the
/// budget and the count.
#[derive(Clone, Debug)]
pub struct Caller {
    endpoints: Endpoints,
    policy: Policy,
    repeats: Arc<AtomicU64>,
    parent: Option<TraceParent>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The service refused it; a repeat would be refused too.
    #[error("{method} at {address}: {failure}")]
    Refused {
        /// The method.
        method: &'static str,
        /// Where the instance is.
        address: Address,
        /// What the service said.
        failure: Box<Failure>,
    },
    /// It failed for too long, or too much fails: the patience or the budget is at its end. It may have been done.
    #[error("{method}: {last}\n  gave up after {attempts} attempt{} in {}", plural(*.attempts), humantime::format_duration(*.elapsed))]
    GaveUp {
        /// The method.
        method: &'static str,
        /// How the last attempt failed.
        last: Box<Refusal>,
        /// How often it was sent.
        attempts: u32,
        /// How long it was tried, in whole milliseconds.
        elapsed: Duration,
    },
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Error {
    /// What the service said, if it refused.
    pub fn refused(&self) -> Option<&Failure> {
        match self {
            Self::Refused { failure, .. } => Some(failure),
            Self::GaveUp { .. } => None,
        }
    }

    /// What the service said, if it speaks of what it stores and not of how it is.
    pub fn contradiction(&self) -> Option<&Failure> {
        let about_the_data = [Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition];
        self.refused().filter(|failure| about_the_data.contains(&failure.code))
    }
}

impl Caller {
    /// Sends to `endpoints` as `policy` says.
    pub fn new(endpoints: Endpoints, policy: Policy) -> Self {
        Self { endpoints, policy, repeats: Arc::default(), parent: None }
    }

    /// The same for calls that are part of another trace than that of whoever makes them: of this span's, if there is one.
    #[must_use]
    pub fn in_trace(&self, parent: Option<TraceParent>) -> Self {
        Self { parent, ..self.clone() }
    }

    /// What it sends by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How many attempts were repeats, over all calls.
    pub fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Sends `request` until it is answered, each time to another instance if there is one.
    ///
    /// Only for calls that are safe to repeat: an attempt whose answer was lost may have been done. `send` makes one attempt
    /// over a channel with a request whose time is set; `method` is what errors call it.
    ///
    /// UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED and what only the transport said are repeated, after pauses that
    /// double, or longer ones if the service asks for them.
    ///
    /// # Errors
    /// The call may have been done nevertheless.
    pub async fn call<T: Clone, R>(
        &self,
        method: &'static str,
        request: &T,
        send: impl AsyncFn(Channel, Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let limit = self.policy.timeout;
        let mut tries = self.tries(method, self.policy.patience, self.policy.budget.as_ref());
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(limit);
            tries.endpoint.authorize(&mut request);
            if let Some(parent) = self.parent {
                in_trace(&mut request, parent);
            }
            // Boxed, because it is large, and part of every future that calls.
            let answer = Box::pin(send(tries.endpoint.channel(), request));
            match within(limit, answer).await {
                Ok(answer) => {
                    tries.answered();
                    return Ok(answer.into_inner());
                }
                Err(status) => tries.failed(&status).await?,
            }
        }
    }

    /// Begins a call.
    pub(crate) fn tries<'a>(
        &'a self,
        method: &'static str,
        patience: Duration,
        budget: Option<&'a Budget>,
    ) -> Tries<'a> {
        if let Some(budget) = budget {
            budget.earn();
        }
        let endpoint = self.endpoints.pick();
        let begin = Instant::now();
        Tries { caller: self, method, patience, budget, endpoint, begin, attempts: 1, backoff: Backoff::new() }
    }
}

/// A call under way, between one attempt and the next.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    caller: &'a Caller,
    method: &'static str,
    patience: Duration,
    budget: Option<&'a Budget>,
    /// Where the present attempt goes.
    pub(crate) endpoint: Arc<Endpoint>,
    begin: Instant,
    attempts: u32,
    backoff: Backoff,
}

impl Tries<'_> {
    /// The call is answered.
    pub(crate) fn answered(&self) {
        self.endpoint.is_back();
    }

    /// The attempt failed. Returns when it is time for another, at another instance.
    ///
    /// # Errors
    /// There is to be no other: a repeat would be refused too, or the patience or the budget is at its end.
    pub(crate) async fn failed(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        if worth_repeating(&failure) {
            return self.again(status).await;
        }
        self.endpoint.judge(&failure);
        let address = self.endpoint.address().clone();
        Err(Error::Refused { method: self.method, address, failure: Box::new(failure) })
    }

    /// The attempt failed in a way that is worth another. Returns when it is time for it.
    ///
    /// # Errors
    /// The patience or the budget is at its end.
    pub(crate) async fn again(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        self.endpoint.judge(&failure);
        let pause = self.backoff.pause(failure.retry_after);
        let too_long = self.begin.elapsed() + pause > self.patience;
        if too_long || self.budget.is_some_and(|budget| !budget.spend()) {
            let last = Box::new(Refusal::new(status, self.endpoint.address()));
            let elapsed = whole_millis(self.begin.elapsed());
            return Err(Error::GaveUp { method: self.method, last, attempts: self.attempts, elapsed });
        }
        self.caller.repeats.fetch_add(1, Ordering::Relaxed);
        sleep(pause).await;
        self.attempts += 1;
        self.endpoint = self.caller.endpoints.pick_other_than(Some(&self.endpoint));
        Ok(())
    }
}

/// People do not read microseconds.
pub(crate) fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidings_proto::lock::ReleaseLockRequest;
    use tidings_proto::lock::lock_service_client::LockServiceClient;
    use tidings_status::Reply;

    use super::*;
    use crate::fake::endpoints;
    use crate::fake::locks::Locks;

    fn caller(addresses: &str, policy: Policy) -> Caller {
        Caller::new(Endpoints::new(&addresses.parse().unwrap()), policy)
    }

    fn patient() -> Caller {
        let patience = Duration::from_mins(1);
        caller("127.0.0.1:1", Policy { timeout: Duration::from_secs(5), patience, budget: None })
    }

    /// Fails with `failures` in turn, then answers with their number.
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
    async fn failures_that_pass_are_repeated_and_counted() {
        let caller = patient();
        let failures = vec![
            Status::unavailable("a"),
            reasoned(Code::ResourceExhausted, None),
            Status::unknown("transport error"),
            Status::deadline_exceeded("late"),
        ];

        assert_eq!(run(&caller, failures).await.unwrap(), 4);
        assert_eq!(caller.repeats(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let caller = patient();

        for status in [reasoned(Code::Internal, None), Status::not_found("no"), Status::invalid_argument("bad")] {
            let error = run(&caller, vec![status.clone()]).await.unwrap_err();
            assert_eq!(error.contradiction().is_some(), status.code() == Code::NotFound);
            assert!(error.to_string().starts_with("Test at 127.0.0.1:1: "), "{error}");
        }
        assert_eq!(caller.repeats(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_says_how_long_to_wait() {
        let begin = Instant::now();

        run(&patient(), vec![reasoned(Code::Unavailable, Some(Duration::from_secs(10)))]).await.unwrap();

        assert!((10..16).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let caller = patient();

        let error = run(&caller, vec![Status::unavailable("away"); 99]).await.unwrap_err();

        assert!(error.to_string().contains("Test: UNAVAILABLE: away\n  gave up after"), "{error}");
        assert!(matches!(error, Error::GaveUp { elapsed, .. } if (50..=60).contains(&elapsed.as_secs())), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_beyond_the_patience_is_not_waited_for() {
        let begin = Instant::now();

        let asked = reasoned(Code::Unavailable, Some(Duration::from_hours(1)));
        let error = run(&patient(), vec![asked]).await.unwrap_err();

        assert!(error.to_string().contains("gave up after 1 attempt in 0s"), "{error}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_budget_is_empty_the_last_error_is_returned_at_once() {
        let budget = Budget::default();
        while budget.spend() {}
        let caller = caller("127.0.0.1:1", Policy { budget: Some(budget), ..Policy::default() });
        let begin = Instant::now();

        let error = run(&caller, vec![Status::unavailable("away")]).await.unwrap_err();

        assert!(matches!(error, Error::GaveUp { attempts: 1, .. }), "{error}");
        assert_eq!((begin.elapsed(), caller.repeats()), (Duration::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_attempt_goes_to_another_instance_whoever_else_calls() {
        let caller = caller("a:1,b:1", Policy::default());
        let mut tries = caller.tries("Test", Duration::from_mins(1), None);
        let mut asked = Vec::new();

        for _ in 0..9 {
            asked.push(tries.endpoint.address().to_string());
            caller.endpoints.pick(); // somebody else's turn
            tries.failed(&reasoned(Code::ResourceExhausted, None)).await.unwrap();
        }

        assert!(asked.windows(2).all(|two| two[0] != two[1]), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_is_told_how_long_it_has() {
        let send = async |_: Channel, request: Request<()>| {
            assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "5000000u");
            Ok(Response::new(()))
        };
        let caller = patient();

        // A task of its own, because that is how services call.
        tokio::spawn(async move { caller.call("Test", &(), send).await }).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_is_out_costs_a_repeat_a_second_and_not_one_a_call() {
        let locks = Locks::new();
        let (a, b) = (locks.instance("a"), locks.instance("b"));
        let caller = Caller::new(endpoints([&a, &b]), Policy::default());
        a.kill();

        for _ in 0..1_000 {
            let send = async |channel, request| LockServiceClient::new(channel).release_lock(request).await;
            caller.call("ReleaseLock", &ReleaseLockRequest::default(), send).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }

        assert!((9..=11).contains(&caller.repeats()), "{} in 10 s", caller.repeats());
    }
}
