//! One line of the list of tokens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Hash, Scopes};

/// A token as the server knows it, written `NAME SHA256 SCOPES`.
#[derive(Clone, Debug)]
pub struct Line {
    /// Whose it is, 1 to 64 of `[A-Za-z0-9._~-]`. Several tokens may have one name: the old one and the new one.
    pub name: Arc<str>,
    /// What is known of it.
    pub hash: Hash,
    /// What it is good for.
    pub scopes: Scopes,
}

/// Reads the name of a token.
///
/// # Errors
/// What is expected instead.
pub(super) fn name(text: &str) -> Result<Arc<str>, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.into())
    } else {
        Err("the name is not 1 to 64 of [A-Za-z0-9._~-]".to_owned())
    }
}

impl Line {
    /// A line for this token.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn new(owner: &str, hash: Hash, scopes: Scopes) -> Result<Self, String> {
        Ok(Self { name: name(owner)?, hash, scopes })
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (Some(owner), Some(hash), Some(scopes), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("these are not three words".to_owned());
        };
        Ok(Self { name: name(owner)?, hash: hash.parse()?, scopes: scopes.parse()? })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.hash.hex(), self.scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let text = format!("gateway {} history:read,lock:write", "0123456789abcdef".repeat(4));

        let line: Line = format!("  {} ", text.replace(' ', " \t")).parse().unwrap();

        assert_eq!(line.to_string(), text);
        assert!(!format!("{line:?}").contains("0123"), "{line:?}");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_without_the_hash() {
        let hash = "0".repeat(64);
        for (text, problem) in [
            ("gateway".to_owned(), "these are not three words"),
            (format!("a b {hash} lock:read"), "these are not three words"),
            (format!("a/b {hash} lock:read"), "the name is not 1 to 64 of [A-Za-z0-9._~-]"),
            (format!("a {hash}0 lock:read"), "the second is not 64 hexadecimal digits"),
            (format!("a {} lock:read", "g".repeat(64)), "the second is not 64 hexadecimal digits"),
            (
                format!("a {hash} lock"),
                "expected SERVICE:ACTION, of user, history, lock, broadcast, * and read, write, admin, got 'lock'",
            ),
        ] {
            assert_eq!(text.parse::<Line>().unwrap_err(), problem, "{text}");
        }
    }
}
