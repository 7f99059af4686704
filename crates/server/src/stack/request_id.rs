//! Request ids: the name of a call in logs, responses and error reports.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header of a request id, in requests and responses.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a caller's id.
const MAX_BYTES: usize = 64;

/// The id of a call: the caller's, or a UUIDv7 made on arrival. In the extensions of every request.
///
/// 1 to 64 characters of `[A-Za-z0-9._~-]`, so it never needs escaping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // Always text: both constructors ensure it.
        self.0.to_str().unwrap_or_default()
    }

    /// Returns the caller's id if it is well-formed, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .get(HEADER)
            .filter(|id| is_well_formed(id.as_bytes()))
            .map_or_else(Self::generate, |id| Self(id.clone()))
    }

    /// Returns the header value, marked so that HPACK does not index it: each id occurs once, and
    /// would evict headers that recur.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut value = self.0.clone();
        value.set_sensitive(true);
        value
    }

    fn generate() -> Self {
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

    fn is_kept(id: &str) -> bool {
        let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_str(id).unwrap())]);
        RequestId::of(&headers).as_str() == id
    }

    #[test]
    fn an_id_of_1_to_64_unreserved_characters_is_kept() {
        assert!(is_kept("a"));
        assert!(is_kept("Order-42_retry~1.0"));
        assert!(is_kept(&"x".repeat(64)));
    }

    #[test]
    fn any_other_id_is_replaced() {
        assert!(!is_kept(""));
        assert!(!is_kept(&"x".repeat(65)));
        assert!(!is_kept("two words"));
        assert!(!is_kept("orders/42"));
        assert_eq!(RequestId::of(&HeaderMap::new()).as_str().len(), 36);
    }
}
