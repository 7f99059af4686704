//! Bearer tokens: identify callers and say which methods they may call.
//!
//! The server stores only the SHA-256 of each token, so its list does not let a reader call. An
//! unsalted hash is enough, because a token is 256 random bits and cannot be guessed.

mod scopes;
mod secret;
mod token_entry;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tidings_proto::{Method, Scope};
use tidings_status::Reply;
use tonic::Status;

pub use self::scopes::Scopes;
pub use self::secret::{Secret, TokenHash};
pub use self::token_entry::TokenEntry;
use crate::reason::Reason;
use crate::reloadable::{MalformedFile, Reloadable, ReloadableContent, UnusableFile};

/// Maximum number of tokens, more than services have callers. Every call compares its token with
/// all of them, at some tens of nanoseconds each.
const TOKENS_MAX: usize = 256;

/// The accepted tokens, reloaded when their list changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Reloadable<TokenList>>);

/// The entries of the list.
struct TokenList(Vec<TokenEntry>);

impl ReloadableContent for TokenList {
    const NAME: &'static str = "tokens";
    const RELOADS_METRIC: &'static str = "tidings_server_token_reloads_total";
}

/// Reasons to refuse a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The call has no bearer token.
    NoToken,
    /// The call has a token that is not in the list, or more than one token.
    UnknownToken,
    /// The token lacks the scope that the method needs; holds the service and the action.
    NoScope(&'static str, Scope),
}

/// The token of a call, without its secret. In the extensions of the request, where tokens are
/// required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerToken {
    /// Name of the token.
    pub name: Arc<str>,
    /// Scopes that it grants.
    pub scopes: Scopes,
}

impl CallerToken {
    /// Checks a scope that depends on the content of a request, beyond that of its method; `path`
    /// is that of the method. Every caller has it if no tokens are required.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    pub fn require(token: Option<&Self>, service: &'static str, scope: Scope, path: &str) -> Result<(), Status> {
        match token {
            Some(token) if !token.scopes.contain(service, scope) => {
                Err(AuthError::NoScope(service, scope).reply(path).into_status())
            }
            _ => Ok(()),
        }
    }
}

impl Tokens {
    /// Reads the list of tokens from a file.
    pub(crate) fn open(path: &Path) -> Result<Self, UnusableFile> {
        Ok(Self(Arc::new(Reloadable::open(vec![path.to_owned()], |contents| TokenList::parse(&contents[0]))?)))
    }

    /// Checks whether a call with these headers may use `method`, and returns its token.
    ///
    /// `None` is a method that does not exist: it passes with any known token, and the router
    /// refuses it.
    ///
    /// # Errors
    /// The reason for which the call is refused.
    pub fn check(&self, headers: &HeaderMap, method: Option<&'static Method>) -> Result<CallerToken, AuthError> {
        let token = bearer(headers)?;
        let list = self.0.current();
        let entry = list.find(&TokenHash::of(token)).ok_or(AuthError::UnknownToken)?;
        match method {
            Some(method) if !entry.scopes.allow(method) => Err(AuthError::NoScope(method.service(), method.scope)),
            _ => Ok(CallerToken { name: Arc::clone(&entry.name), scopes: entry.scopes }),
        }
    }

    /// Polls the list at this interval and reloads it when it has changed; runs until dropped.
    pub(crate) async fn watch(self, poll_interval: Duration) {
        self.0.watch(poll_interval).await;
    }
}

/// Returns the token that follows `Bearer` in the only `authorization` header of a call.
fn bearer(headers: &HeaderMap) -> Result<&[u8], AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::NoToken)?.as_bytes();
    if values.next().is_some() {
        return Err(AuthError::UnknownToken);
    }
    let (scheme, token) = value.split_at_checked("Bearer ".len()).ok_or(AuthError::NoToken)?;
    if scheme.eq_ignore_ascii_case(b"Bearer ") { Ok(token) } else { Err(AuthError::NoToken) }
}

impl TokenList {
    fn parse(content: &[u8]) -> Result<Self, MalformedFile> {
        let malformed = |expected: String| (0, expected);
        let text = std::str::from_utf8(content).map_err(|_| malformed("text in UTF-8".to_owned()))?;
        let mut entries = Vec::new();
        let mut first_lines = HashMap::new();
        for (number, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let entry: TokenEntry = text
                .parse()
                .map_err(|problem| malformed(format!("NAME SHA256 SCOPES, but in line {number}: {problem}")))?;
            if let Some(first) = first_lines.insert(entry.hash.clone(), number) {
                return Err(malformed(format!("each token once, but line {number} repeats the token of line {first}")));
            }
            entries.push(entry);
        }
        if entries.len() > TOKENS_MAX {
            return Err(malformed(format!("at most {TOKENS_MAX} tokens, got {}", entries.len())));
        }
        Ok(Self(entries))
    }

    /// Finds the entry of a token in constant time: the duration depends only on the length of the
    /// list.
    fn find(&self, hash: &TokenHash) -> Option<&TokenEntry> {
        let mut found = (Choice::from(0), 0_u64);
        for (index, entry) in (0..).zip(&self.0) {
            let equal = entry.hash.ct_eq(hash);
            found.0 |= equal;
            found.1.conditional_assign(&index, equal);
        }
        let (is_known, index) = found;
        self.0.get(usize::try_from(index).ok()?).filter(|_| is_known.into())
    }
}

impl AuthError {
    /// Builds the reply to a call of this path.
    pub fn reply(self, path: &str) -> Reply {
        match self {
            Self::NoToken => {
                Reason::Unauthenticated.reply(path, "no token: expected metadata 'authorization: Bearer TOKEN'")
            }
            Self::UnknownToken => {
                Reason::Unauthenticated.reply(path, "unknown token: not in the token list of this service")
            }
            Self::NoScope(service, scope) => {
                let scope = format!("{service}:{}", scope.as_str());
                let message = format!("the token lacks the scope {scope}");
                Reason::PermissionDenied.reply(path, message).with("scope", &scope)
            }
        }
    }
}

#[cfg(test)]
mod tests;
