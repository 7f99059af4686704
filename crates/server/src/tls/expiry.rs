//! Reads the expiry time of a certificate: the few steps through its DER to `notAfter` (RFC 5280,
//! 4.1). No crate in the dependency tree does it.

use tokio_rustls::rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag `[0]` of the version field; absent in certificates of version 1.
const VERSION: u8 = 0xa0;

/// Returns the expiry in seconds of Unix time; `None` if it cannot be found, in which case the
/// certificate is still used.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (certificate, _) = take(SEQUENCE, certificate)?;
    let (mut rest, _) = take(SEQUENCE, certificate)?;
    if let Some((_, after_version)) = take(VERSION, rest) {
        rest = after_version;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = take(tag, rest)?;
    }
    let (validity, _) = take(SEQUENCE, rest)?;
    let (_, not_after) = time(validity)?;
    let (seconds, _) = time(not_after)?;
    Some(seconds)
}

/// Splits off the element at the beginning, if it has this tag. Returns its content and the rest.
fn take(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // The low bits give the number of length bytes that follow.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Parses a time, `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    if let Some((time, rest)) = take(GENERALIZED_TIME, bytes) {
        let (century, time) = time.split_at_checked(2)?;
        return Some((seconds(100 * number(century)?, time)?, rest));
    }
    let (time, rest) = take(UTC_TIME, bytes)?;
    let century = if number(time.get(..2)?)? < 50 { 2000 } else { 1900 };
    Some((seconds(century, time)?, rest))
}

fn seconds(century: i64, time: &[u8]) -> Option<i64> {
    let time: &[u8; 13] = time.try_into().ok().filter(|time: &&[u8; 13]| time[12] == b'Z')?;
    let mut parts = time[..12].chunks(2).map(number);
    let mut part = || parts.next().flatten();
    let (year, month, day) = (century + part()?, part()?, part()?);
    let (hour, minute, second) = (part()?, part()?, part()?);
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Returns the days since 1 January 1970. The year begins in March, so that its leap day is its
/// last (Hinnant, `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_expiry_is_found_in_a_certificate() {
        for (year, month, day, seconds) in [
            (1999, 12, 31, 946_598_400),
            (2028, 2, 29, 1_835_395_200),
            (2049, 3, 1, 2_498_169_600),
            (2100, 1, 1, 4_102_444_800),
        ] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, month, day);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();

            assert_eq!(of(certificate.der()), Some(seconds), "{year}");
        }
    }

    #[test]
    fn malformed_der_has_no_expiry() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x84, 1, 1, 1, 1], &[0x30, 3, 0x30, 5, 1], &[0xff; 40]] {
            assert_eq!(of(&CertificateDer::from(bytes)), None);
        }
    }
}
