//! Reasons, other than an outage, for which a Redis server is not used.

use std::error::Error as _;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

/// Error codes of a server that refuses the user or one of its commands.
const DENIALS: [&str; 4] = ["NOPERM", "NOAUTH", "WRONGPASS", "DENIED"];

/// Text of the server's error for a command that the user must not run.
const NO_PERMISSION: &str = "permissions";

/// Reason, other than an outage, for which a server is not used: the finding, and its cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{finding}: {cure}")]
pub struct Unusable {
    finding: Arc<str>,
    cure: Arc<str>,
    is_permanent: bool,
}

impl Unusable {
    /// A server of another kind or configuration, which no wait changes: a service refuses to
    /// start with it.
    pub(crate) fn permanent(finding: impl Into<Arc<str>>, cure: impl Into<Arc<str>>) -> Self {
        Self { finding: finding.into(), cure: cure.into(), is_permanent: true }
    }

    /// A refusal that an operator can end at the server, while the service runs.
    pub(crate) fn refusal(finding: impl Into<Arc<str>>, cure: impl Into<Arc<str>>) -> Self {
        Self { finding: finding.into(), cure: cure.into(), is_permanent: false }
    }

    /// Returns the permissions that are missing, and the command that grants them.
    pub(crate) fn missing_permissions(user: &str, missing: &[String]) -> Self {
        let missing = missing.join(" ");
        Self::refusal(format!("the ACL user {user} lacks {missing}"), format!("ACL SETUSER {user} {missing}"))
    }

    /// Returns the finding, without its cure.
    pub fn finding(&self) -> &str {
        &self.finding
    }

    /// Returns the step that makes the server usable.
    pub fn cure(&self) -> &str {
        &self.cure
    }

    /// Returns true if only another server, or another configuration of it, can be used.
    pub fn is_permanent(&self) -> bool {
        self.is_permanent
    }

    /// Classifies the failure of a connection attempt; `None` for an outage.
    pub(crate) fn from_connecting(error: &RedisError, user: &str) -> Option<Self> {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::RESP3NotSupported => Some(old("without HELLO")),
            ErrorKind::AuthenticationFailed => Some(wrong_credentials(error)),
            ErrorKind::Parse => Some(other_product()),
            _ if error.code() == Some("NOPROTO") => Some(old("without RESP3")),
            _ if is_denied(error) && text.contains(NO_PERMISSION) => Some(no_permission(user, &text)),
            _ if error.code() == Some("DENIED") => {
                Some(Self::refusal("redis is in protected mode", "set a password, or bind and protected-mode, there"))
            }
            _ if is_denied(error) => Some(wrong_credentials(error)),
            _ if text.contains("switch database") && text.contains(NO_PERMISSION) => {
                Some(Self::missing_permissions(user, &["+select".to_owned()]))
            }
            _ if text.contains("switch database") => Some(no_such_database(error)),
            _ if has_tls_failure(error) => Some(Self::refusal(
                format!("TLS failed: {}", tls_failure(error)),
                "check the certificate of redis, the host name in --redis-url, and --redis-ca (TIDINGS_REDIS_CA)",
            )),
            _ if error.code().is_none() && text.contains("arse") => Some(other_product()),
            _ => None,
        }
    }
}

/// Returns true if the server refused the user, or one command of it.
pub(crate) fn is_denied(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| DENIALS.contains(&error.code())))
}

fn old(missing: &str) -> Unusable {
    Unusable::permanent(format!("found a redis {missing}"), "need redis 7.0 or newer, or valkey 7.2 or newer")
}

fn other_product() -> Unusable {
    Unusable::permanent(
        "the server does not speak the protocol of redis",
        "set --redis-url (TIDINGS_REDIS_URL) to the address of a redis; rediss:// if it expects TLS",
    )
}

fn wrong_credentials(error: &RedisError) -> Unusable {
    let words = [error.code(), error.detail()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Unusable::refusal(
        format!("redis refuses the user or the password ({words})"),
        "correct them in --redis-url (TIDINGS_REDIS_URL), or at the server with ACL SETUSER",
    )
}

fn no_permission(user: &str, text: &str) -> Unusable {
    let command = text.split('\'').nth(1).unwrap_or("info");
    Unusable::missing_permissions(user, &[format!("+{command}")])
}

fn no_such_database(error: &RedisError) -> Unusable {
    let reason = error.detail().unwrap_or("refused").trim_start_matches("ERR ").to_owned();
    Unusable::permanent(
        format!("the database number of --redis-url cannot be selected ({reason})"),
        "use another number in --redis-url (TIDINGS_REDIS_URL), or raise `databases` of the server",
    )
}

/// Returns true if the handshake failed, or the server does not speak TLS.
fn has_tls_failure(error: &RedisError) -> bool {
    let text = tls_failure(error);
    ["peer certificate", "corrupt message", "fatal alert", "handshake"].iter().any(|part| text.contains(part))
}

fn tls_failure(error: &RedisError) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
