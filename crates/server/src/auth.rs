//! Bearer tokens: who calls, and what they may.
//!
//! The server knows tokens by their SHA-256 only: whoever reads its list can not call with it. That is enough because a
//! token is 256 random bits, which nobody finds by trying.

mod line;
mod scopes;
mod secret;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tidings_proto::{Method, Scope};
use tidings_status::Reply;

pub use self::line::Line;
pub use self::scopes::Scopes;
pub use self::secret::{Hash, Secret};
use crate::Reason;
use crate::live::{Content, Live, Malformed, Unusable};

/// More than services have callers. Each costs every call some tens of nanoseconds, as all are compared.
const TOKENS_MAX: usize = 256;

/// The tokens that are accepted, as their list says at the moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Live<List>>);

/// The lines of the list.
struct List(Vec<Line>);

impl Content for List {
    const WHAT: &'static str = "tokens";
    const RELOADS: &'static str = "tidings_server_token_reloads_total";
}

/// Why a call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no token.
    NoToken,
    /// It has one that is not in the list, or two.
    UnknownToken,
    /// Its token does not have the scope of this service that the method needs.
    NoScope(&'static str, Scope),
}

impl Tokens {
    /// Reads the list.
    pub(crate) fn open(path: &Path) -> Result<Self, Unusable> {
        Ok(Self(Arc::new(Live::open(vec![path.to_owned()], |contents| List::read(&contents[0]))?)))
    }

    /// Says whether a call with these headers may go on to `method`, and whose token it has. `None` is a method that does
    /// not exist: whoever has a token is told so by what answers it.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, headers: &HeaderMap, method: Option<&'static Method>) -> Result<Arc<str>, Refusal> {
        let token = bearer(headers)?;
        let list = self.0.now();
        let line = list.find(&Hash::of(token)).ok_or(Refusal::UnknownToken)?;
        match method {
            Some(method) if !line.scopes.allow(method) => Err(Refusal::NoScope(method.service(), method.scope)),
            _ => Ok(Arc::clone(&line.name)),
        }
    }

    /// Looks at the list so often, and takes over what it holds when that has changed, for as long as it is polled.
    pub(crate) async fn watch(self, look: Duration) {
        self.0.watch(look).await;
    }
}

/// The token of a call: what stands behind `Bearer` in its one `authorization`.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoToken)?.as_bytes();
    if values.next().is_some() {
        return Err(Refusal::UnknownToken);
    }
    let (scheme, token) = value.split_at_checked("Bearer ".len()).ok_or(Refusal::NoToken)?;
    if scheme.eq_ignore_ascii_case(b"Bearer ") { Ok(token) } else { Err(Refusal::NoToken) }
}

impl List {
    fn read(content: &[u8]) -> Result<Self, Malformed> {
        let malformed = |expected: String| (0, expected);
        let text = std::str::from_utf8(content).map_err(|_| malformed("text in UTF-8".to_owned()))?;
        let mut lines = Vec::new();
        let mut places = HashMap::new();
        for (number, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let line: Line = text
                .parse()
                .map_err(|problem| malformed(format!("NAME SHA256 SCOPES, but in line {number}: {problem}")))?;
            if let Some(place) = places.insert(line.hash.clone(), number) {
                return Err(malformed(format!("each token once, but line {number} has that of line {place}")));
            }
            lines.push(line);
        }
        if lines.len() > TOKENS_MAX {
            return Err(malformed(format!("at most {TOKENS_MAX} tokens, got {}", lines.len())));
        }
        Ok(Self(lines))
    }

    /// The line of a token. How long it takes says nothing about the list but its length.
    fn find(&self, hash: &Hash) -> Option<&Line> {
        let mut found = (Choice::from(0), 0_u64);
        for (place, line) in (0..).zip(&self.0) {
            let equal = line.hash.ct_eq(hash);
            found.0 |= equal;
            found.1.conditional_assign(&place, equal);
        }
        let (is_there, place) = found;
        self.0.get(usize::try_from(place).ok()?).filter(|_| is_there.into())
    }
}

impl Refusal {
    /// How it is answered to a call of this path.
    pub fn reply(self, path: &str) -> Reply {
        match self {
            Self::NoToken => Reason::Unauthenticated
                .reply(path, "the call has no token: expected authorization: Bearer TOKEN in its metadata"),
            Self::UnknownToken => Reason::Unauthenticated.reply(path, "the token is not known here"),
            Self::NoScope(service, scope) => {
                let scope = format!("{service}:{}", scope.as_str());
                let message = format!("the token does not have the scope {scope}");
                Reason::PermissionDenied.reply(path, message).with("scope", &scope)
            }
        }
    }
}

#[cfg(test)]
mod tests;
