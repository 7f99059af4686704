//! Repeats calls until they are answered. Every call of a replay is safe to repeat; the contracts say why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings_status::Failure;
use tonic::{Code, Request, Response, Status};

use crate::address::Address;
use crate::refusal::{self, Refusal};

/// The pause after the first failure; each further one doubles it, ...
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// ... up to this: a service that comes back is found within two seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long one attempt and all of them may take.
#[derive(Debug)]
pub(super) struct Retry {
    timeout: Duration,
    patience: Duration,
    repeats: AtomicU64,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused it; a repeat would be refused too.
    #[error("{method} at {address}: {failure}")]
    Refused {
        /// The method.
        method: &'static str,
        /// Where the service is.
        address: String,
        /// What the service said.
        failure: Box<Failure>,
    },
    /// It failed for too long.
    #[error("{method}: {last}\n  gave up after {attempts} attempts in {}", humantime::format_duration(*.patience))]
    GaveUp {
        /// The method.
        method: &'static str,
        /// How the last attempt failed.
        last: Refusal,
        /// How often it was sent.
        attempts: u32,
        /// How long failures were borne.
        patience: Duration,
    },
}

impl Error {
    /// What the service said, if it speaks of what it stores and not of how it is.
    pub(super) fn contradiction(&self) -> Option<&Failure> {
        match self {
            Self::Refused { failure, .. } => {
                let about_the_data = [Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition];
                about_the_data.contains(&failure.code).then_some(failure)
            }
            Self::GaveUp { .. } => None,
        }
    }
}

impl Retry {
    /// Attempts wait `timeout` for their answer; a call may fail for `patience` before it is given up.
    pub(super) fn new(timeout: Duration, patience: Duration) -> Self {
        Self { timeout, patience, repeats: AtomicU64::new(0) }
    }

    /// How many attempts were repeats, over all calls.
    pub(super) fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Sends `request` to `address` until it is answered.
    ///
    /// # Errors
    /// The call may have been done nevertheless.
    pub(super) async fn run<T: Clone, R>(
        &self,
        method: &'static str,
        address: &Address,
        request: &T,
        send: impl AsyncFn(Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let begin = Instant::now();
        let mut backoff = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let request = Request::new(request.clone());
            let status = match refusal::within(self.timeout, request, async |request| send(request).await).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let failure = Failure::from(&status);
            if !worth_repeating(&failure) {
                return Err(Error::Refused { method, address: address.to_string(), failure: Box::new(failure) });
            }
            // Jitter keeps conversations that failed together from coming back together.
            let pause = failure.retry_after.unwrap_or(backoff).min(self.patience).mul_f64(rand::random_range(1.0..1.5));
            if begin.elapsed() + pause > self.patience {
                let last = Refusal::new(&status, address);
                return Err(Error::GaveUp { method, last, attempts, patience: self.patience });
            }
            self.repeats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Says whether the same call may fare better later: the service is busy or away, or it was not the service that spoke.
fn worth_repeating(failure: &Failure) -> bool {
    match failure.code {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
        // Without a reason of ours it is the transport that speaks: a connection that was cut, a stream that was reset.
        Code::Unknown | Code::Internal | Code::Cancelled => failure.reason.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tidings_status::Reply;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// Answers with `failures` in turn, then with their number.
    async fn run(retry: &Retry, failures: Vec<Status>) -> Result<usize, Error> {
        let count = failures.len();
        let failures = std::sync::Mutex::new(failures.into_iter());
        let address = "127.0.0.1:1".parse().unwrap();
        let send = async |_: Request<()>| match failures.lock().unwrap().next() {
            Some(status) => Err(status),
            None => Ok(Response::new(count)),
        };
        retry.run("Test", &address, &(), send).await
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
        let retry = Retry::new(Duration::from_secs(5), PATIENCE);
        let failures = vec![
            Status::unavailable("a"),
            reasoned(Code::ResourceExhausted, None),
            Status::unknown("transport error"),
            Status::deadline_exceeded("late"),
        ];

        assert_eq!(run(&retry, failures).await.unwrap(), 4);
        assert_eq!(retry.repeats(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let retry = Retry::new(Duration::from_secs(5), PATIENCE);

        for status in [reasoned(Code::Internal, None), Status::not_found("no"), Status::invalid_argument("bad")] {
            let error = run(&retry, vec![status.clone()]).await.unwrap_err();
            assert_eq!(error.contradiction().is_some(), status.code() == Code::NotFound);
        }
        assert_eq!(retry.repeats(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_says_how_long_to_wait() {
        let retry = Retry::new(Duration::from_secs(5), PATIENCE);
        let begin = tokio::time::Instant::now();

        run(&retry, vec![reasoned(Code::Unavailable, Some(Duration::from_secs(10)))]).await.unwrap();

        assert!((10..16).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn patience_ends() {
        let retry = Retry::new(Duration::from_secs(5), Duration::from_millis(100));

        let error = run(&retry, vec![Status::unavailable("away"); 9]).await.unwrap_err();

        assert!(error.to_string().contains("Test: UNAVAILABLE: away\n  gave up after"), "{error}");
    }
}
