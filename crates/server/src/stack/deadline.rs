//! The deadline of a call.

use std::time::Duration;

use http::HeaderMap;
use tidings_status::Reply;
use tokio::time::Instant;
use tonic::Status;

use crate::reason::Reason;

/// The header that carries the caller's timeout.
const HEADER: &str = "grpc-timeout";
/// Maximum number of digits of a timeout, by the gRPC specification.
const DIGITS_MAX: usize = 8;

/// The deadline of a call: the cap of its method or the timeout of the caller, whichever is
/// shorter. In the extensions of every request that has one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    caller_timeout: Option<Duration>,
}

/// The `grpc-timeout` header is malformed.
#[derive(Debug)]
pub(super) struct MalformedTimeout;

impl Deadline {
    /// Returns the instant after which the response is DEADLINE_EXCEEDED.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns the timeout of the caller, if it sent one.
    pub fn callers(&self) -> Option<Duration> {
        self.caller_timeout
    }
}

impl MalformedTimeout {
    pub(super) fn reply(path: &str) -> Reply {
        Reason::InvalidTimeout
            .reply(path, "malformed grpc-timeout: expected 1 to 8 digits and a unit of H, M, S, m, u, n, like 500m")
    }
}

/// Computes the deadline of a call from its headers and the cap of its method.
pub(super) fn of(headers: &HeaderMap, cap: Option<Duration>) -> Result<Option<Deadline>, MalformedTimeout> {
    let caller_timeout = match headers.get(HEADER) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(parse).ok_or(MalformedTimeout)?),
    };
    let shorter = caller_timeout.into_iter().chain(cap).min();
    Ok(shorter.map(|limit| Deadline { at: Instant::now() + limit, caller_timeout }))
}

/// Returns the status of a call to this path whose deadline has passed.
pub(super) fn exceeded(path: &str) -> Status {
    Reason::DeadlineExceeded.reply(path, "deadline exceeded before the call completed").into_status()
}

/// Parses digits and a unit: H, M, S, m, u, n.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=DIGITS_MAX).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CAP: Duration = Duration::from_secs(5);

    fn remaining(timeout: Option<&str>, cap: Option<Duration>) -> Result<Option<u64>, MalformedTimeout> {
        let mut headers = HeaderMap::new();
        if let Some(timeout) = timeout {
            headers.insert(HEADER, HeaderValue::from_str(timeout).unwrap());
        }
        Ok(of(&headers, cap)?.map(|deadline| (deadline.at() - Instant::now()).as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_shorter_of_cap_and_caller_timeout_counts() {
        assert_eq!(remaining(None, Some(CAP)).unwrap(), Some(5));
        assert_eq!(remaining(Some("2S"), Some(CAP)).unwrap(), Some(2));
        assert_eq!(remaining(Some("2H"), Some(CAP)).unwrap(), Some(5));
        assert_eq!(remaining(Some("2M"), None).unwrap(), Some(120));
        assert_eq!(remaining(None, None).unwrap(), None);
    }

    #[test]
    fn every_unit_is_parsed() {
        let parsed = ["2H", "2M", "2S", "2m", "2u", "2n"].map(|text| parse(text).unwrap().as_nanos());

        assert_eq!(parsed, [7_200_000_000_000, 120_000_000_000, 2_000_000_000, 2_000_000, 2_000, 2]);
        assert!(parse("99999999H").is_some());
    }

    #[test]
    fn an_invalid_timeout_is_malformed() {
        for text in ["", "S", "5", "5s", "-5S", "5 S", "999999999S"] {
            remaining(Some(text), Some(CAP)).unwrap_err();
        }
        assert_eq!(parse("5é"), None);
    }
}
