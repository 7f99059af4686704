//! What a call is called, in logs, answers and error reports.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header in which a request id comes and goes.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken over from a caller.
const MAX_BYTES: usize = 64;

/// The id of one call: the caller's, or a UUIDv7 made on arrival. Found in the extensions of every request.
///
/// 1 to 64 of `[A-Za-z0-9._~-]`, so it needs no escaping anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Always text: both ways to make one see to it.
        self.0.to_str().unwrap_or_default()
    }

    /// The caller's id if it is well-formed, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(HEADER).filter(|id| is_well_formed(id.as_bytes())).map_or_else(Self::make, |id| Self(id.clone()))
    }

    /// Not to be remembered by the compression of headers: it never comes again, and would drive out what does.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut value = self.0.clone();
        value.set_sensitive(true);
        value
    }

    fn make() -> Self {
        let mut text = Uuid::encode_buffer();
        let text = Uuid::now_v7().hyphenated().encode_lower(&mut text);
        #[expect(clippy::expect_used, reason = "hex digits and hyphens are legal in a header")]
        Self(HeaderValue::from_str(text).expect("a UUID is a legal header"))
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~-".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(id: &str) -> bool {
        let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_str(id).unwrap())]);
        RequestId::of(&headers).as_str() == id
    }

    #[test]
    fn an_id_of_1_to_64_unreserved_characters_is_taken_over() {
        assert!(taken("a"));
        assert!(taken("Order-42_retry~1.0"));
        assert!(taken(&"x".repeat(64)));
    }

    #[test]
    fn any_other_id_is_replaced() {
        assert!(!taken(""));
        assert!(!taken(&"x".repeat(65)));
        assert!(!taken("two words"));
        assert!(!taken("orders/42"));
        assert_eq!(RequestId::of(&HeaderMap::new()).as_str().len(), 36);
    }
}
