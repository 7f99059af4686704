//! The deadline of a call, as its caller told it.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// More digits than this are no time-out, says the specification of gRPC.
const DIGITS_MAX: usize = 8;

/// How long the caller waits for the answer; `None` if it does not say so, or nothing that can be read.
pub(super) fn of(metadata: &MetadataMap) -> Option<Duration> {
    read(metadata.get("grpc-timeout")?.to_str().ok()?)
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
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let read = ["2H", "2M", "2S", "2m", "2u", "2n"].map(|text| read(text).unwrap().as_nanos());

        assert_eq!(read, [7_200_000_000_000, 120_000_000_000, 2_000_000_000, 2_000_000, 2_000, 2]);
        assert!(super::read("99999999H").is_some());
    }

    #[test]
    fn what_is_no_deadline_is_ignored() {
        for text in ["", "S", "5", "5s", "-5S", "5 S", "999999999S", "5é", "é"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
