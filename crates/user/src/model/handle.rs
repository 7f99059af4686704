//! Under what a handle is unique.

use std::fmt;

/// What handles that differ in case only have in common: the key under which each belongs to one user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleKey(String);

impl HandleKey {
    /// The key of a handle, or of the beginning of one.
    pub fn of(handle: &str) -> Self {
        Self(handle.to_ascii_lowercase())
    }

    /// Takes what was a key before.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
