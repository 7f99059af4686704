//! An entry of the token list.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::scopes::Scopes;
use super::secret::TokenHash;

/// An entry of the token list, written `NAME SHA256 SCOPES`.
#[derive(Clone, Debug)]
pub struct TokenEntry {
    /// The owner of the token: 1 to 64 characters of `[A-Za-z0-9._~-]`. During a rotation the old
    /// and the new token share one name.
    pub name: Arc<str>,
    /// The SHA-256 of the token.
    pub hash: TokenHash,
    /// The scopes that the token grants.
    pub scopes: Scopes,
}

/// Parses the name of a token.
///
/// # Errors
/// The rule that the name breaks.
pub(super) fn name(text: &str) -> Result<Arc<str>, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.into())
    } else {
        Err("NAME is not 1 to 64 of [A-Za-z0-9._~-]".to_owned())
    }
}

impl TokenEntry {
    /// Creates the entry of a token.
    ///
    /// # Errors
    /// The rule that the name breaks.
    pub fn new(owner: &str, hash: TokenHash, scopes: Scopes) -> Result<Self, String> {
        Ok(Self { name: name(owner)?, hash, scopes })
    }
}

impl FromStr for TokenEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (Some(owner), Some(hash), Some(scopes), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("not three words separated by spaces".to_owned());
        };
        Ok(Self { name: name(owner)?, hash: hash.parse()?, scopes: scopes.parse()? })
    }
}

impl fmt::Display for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.hash.hex(), self.scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_parsed_as_it_is_written() {
        let text = format!("gateway {} history:read,lock:write", "0123456789abcdef".repeat(4));

        let line: TokenEntry = format!("  {} ", text.replace(' ', " \t")).parse().unwrap();

        assert_eq!(line.to_string(), text);
        assert!(!format!("{line:?}").contains("0123"), "{line:?}");
    }

    #[test]
    fn parse_errors_name_the_field_and_never_show_the_hash() {
        let hash = "0".repeat(64);
        for (text, problem) in [
            ("gateway".to_owned(), "not three words separated by spaces"),
            (format!("a b {hash} lock:read"), "not three words separated by spaces"),
            (format!("a/b {hash} lock:read"), "NAME is not 1 to 64 of [A-Za-z0-9._~-]"),
            (format!("a {hash}0 lock:read"), "SHA256 is not 64 hexadecimal digits"),
            (format!("a {} lock:read", "g".repeat(64)), "SHA256 is not 64 hexadecimal digits"),
            (
                format!("a {hash} lock"),
                "expected SERVICE:ACTION, of user, history, lock, broadcast, * and read, write, admin, relay, got 'lock'",
            ),
        ] {
            assert_eq!(text.parse::<TokenEntry>().unwrap_err(), problem, "{text}");
        }
    }
}
