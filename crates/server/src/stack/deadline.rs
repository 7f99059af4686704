//! Until when a call has to be answered.

use std::time::Duration;

use http::HeaderMap;
use tidings_status::Reply;
use tokio::time::Instant;

use crate::Reason;

/// The header in which a caller says how long it waits.
const HEADER: &str = "grpc-timeout";
/// More digits than this are no time-out, says the specification of gRPC.
const DIGITS_MAX: usize = 8;

/// When a call has to be answered: the cap of its method, or earlier if its caller does not wait so long. In the extensions
/// of every request that has one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    callers: Option<Duration>,
}

/// A `grpc-timeout` that is none.
#[derive(Debug)]
pub(super) struct Malformed;

impl Deadline {
    /// Past this moment the answer is DEADLINE_EXCEEDED.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// How long the caller said that it waits, if it did.
    pub fn callers(&self) -> Option<Duration> {
        self.callers
    }
}

impl Malformed {
    pub(super) fn reply(path: &str) -> Reply {
        Reason::InvalidTimeout
            .reply(path, "malformed grpc-timeout: expected 1 to 8 digits and a unit of H, M, S, m, u, n, like 500m")
    }
}

/// The deadline of a call with these headers that may take `cap`.
pub(super) fn of(headers: &HeaderMap, cap: Option<Duration>) -> Result<Option<Deadline>, Malformed> {
    let callers = match headers.get(HEADER) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(read).ok_or(Malformed)?),
    };
    let shorter = callers.into_iter().chain(cap).min();
    Ok(shorter.map(|limit| Deadline { at: Instant::now() + limit, callers }))
}

/// Reads digits and a unit: H, M, S, m, u, n.
fn read(text: &str) -> Option<Duration> {
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

    fn left(timeout: Option<&str>, cap: Option<Duration>) -> Result<Option<u64>, Malformed> {
        let mut headers = HeaderMap::new();
        if let Some(timeout) = timeout {
            headers.insert(HEADER, HeaderValue::from_str(timeout).unwrap());
        }
        Ok(of(&headers, cap)?.map(|deadline| (deadline.at() - Instant::now()).as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_cap_and_callers_timeout_counts() {
        assert_eq!(left(None, Some(CAP)).unwrap(), Some(5));
        assert_eq!(left(Some("2S"), Some(CAP)).unwrap(), Some(2));
        assert_eq!(left(Some("2H"), Some(CAP)).unwrap(), Some(5));
        assert_eq!(left(Some("2M"), None).unwrap(), Some(120));
        assert_eq!(left(None, None).unwrap(), None);
    }

    #[test]
    fn every_unit_is_read() {
        let read = ["2H", "2M", "2S", "2m", "2u", "2n"].map(|text| read(text).unwrap().as_nanos());

        assert_eq!(read, [7_200_000_000_000, 120_000_000_000, 2_000_000_000, 2_000_000, 2_000, 2]);
        assert!(super::read("99999999H").is_some());
    }

    #[test]
    fn what_is_no_timeout_is_malformed() {
        for text in ["", "S", "5", "5s", "-5S", "5 S", "999999999S"] {
            left(Some(text), Some(CAP)).unwrap_err();
        }
        assert_eq!(read("5é"), None);
    }
}
