//! Why the server itself refuses a call, whichever service it serves: the same names in every contract.

use tidings_status::Reply;
use tonic::Code;

/// Whose reasons those are that no contract lists: of health, reflection, and services that nobody knows.
const SERVER: &str = "server.tidings";

/// A value that every `ErrorReason` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A request or an answer above the limit.
    MessageTooLarge,
    /// A request that is no message of its type.
    Undecodable,
    /// A method that is not served here.
    UnknownMethod,
    /// A request compressed in a way that is not understood here.
    UnsupportedEncoding,
    /// No valid token.
    Unauthenticated,
    /// A token without the scope that is needed.
    PermissionDenied,
    /// Past the caller's deadline or the cap of the method.
    DeadlineExceeded,
    /// A malformed `grpc-timeout`.
    InvalidTimeout,
    /// More calls than can be worked on.
    Overloaded,
    /// The process is about to end.
    Draining,
    /// A bug.
    Internal,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::MessageTooLarge,
        Self::Undecodable,
        Self::UnknownMethod,
        Self::UnsupportedEncoding,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::DeadlineExceeded,
        Self::InvalidTimeout,
        Self::Overloaded,
        Self::Draining,
        Self::Internal,
    ];

    /// As `ErrorInfo` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::Undecodable => "UNDECODABLE",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::UnsupportedEncoding => "UNSUPPORTED_ENCODING",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::InvalidTimeout => "INVALID_TIMEOUT",
            Self::Overloaded => "OVERLOADED",
            Self::Draining => "DRAINING",
            Self::Internal => "INTERNAL",
        }
    }

    /// The code it is sent under.
    pub fn code(self) -> Code {
        match self {
            Self::MessageTooLarge | Self::Overloaded => Code::ResourceExhausted,
            Self::Undecodable | Self::InvalidTimeout => Code::InvalidArgument,
            Self::UnknownMethod | Self::UnsupportedEncoding => Code::Unimplemented,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Draining => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// Begins the answer to a call of this path.
    pub fn reply(self, path: &str, message: impl Into<String>) -> Reply {
        Reply::new(self.code(), domain(path), self.as_str(), message)
    }
}

/// Whose reasons the answers to calls of this path have, e.g. `user.tidings`.
pub fn domain(path: &str) -> &'static str {
    const DOMAINS: [(&str, &str); 4] = [
        ("user", "user.tidings"),
        ("history", "history.tidings"),
        ("lock", "lock.tidings"),
        ("broadcast", "broadcast.tidings"),
    ];
    let service = path.strip_prefix("/tidings.").and_then(|rest| rest.split('.').next());
    let known = DOMAINS.into_iter().find(|(name, _)| service == Some(name));
    known.map_or(SERVER, |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_refused_in_the_domain_of_its_contract() {
        assert_eq!(domain("/tidings.user.v1.UserService/GetUser"), "user.tidings");
        assert_eq!(domain("/tidings.broadcast.v1.Nonsense/GetUser"), "broadcast.tidings");
        assert_eq!(domain("/grpc.health.v1.Health/Check"), "server.tidings");
        assert_eq!(domain("/tidings.usher.v1.UserService/GetUser"), "server.tidings");
        assert_eq!(domain(""), "server.tidings");
    }
}
