//! A token before it is given away, and what is kept of it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What every token begins with, so that scanners for secrets find one that was committed by mistake.
const PREFIX: &str = "tidings_";

/// A new token: `tidings_` and 64 hexadecimal digits. Shown once, to whoever made it.
pub struct Secret(String);

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Secret {
    /// Draws one of 2^256.
    pub fn generate() -> Self {
        let bits: [u8; 32] = rand::random();
        Self(format!("{PREFIX}{}", Hash(bits).hex()))
    }

    /// The token itself. To be shown to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the list of tokens has of it.
    pub fn hash(&self) -> Hash {
        Hash::of(self.0.as_bytes())
    }
}

impl Hash {
    /// Of a token as it is sent.
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub(super) fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl ConstantTimeEq for Hash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || "the second is not 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(problem());
        }
        let mut hash = [0; 32];
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| problem())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Debug for Secret {
    /// Not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for Hash {
    /// Not what it is either: logs are read by more people than lists of tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}
