//! Reasons for which the server itself refuses a call; every contract has them under the same
//! names.

use tidings_proto::lock::ErrorReason; // every contract has these reasons under the same names
use tidings_status::Reply;
use tonic::Code;

/// Domain of refused calls to health, reflection and unknown services.
const SERVER: &str = "server.tidings";

/// A reason that every contract's `ErrorReason` enum contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A request or a response exceeds the size limit.
    MessageTooLarge,
    /// The request cannot be decoded as its message type.
    Undecodable,
    /// The server does not serve this method.
    UnknownMethod,
    /// The request is compressed with an unsupported algorithm.
    UnsupportedEncoding,
    /// The call has no valid token.
    Unauthenticated,
    /// The token lacks the scope that the method needs.
    PermissionDenied,
    /// The deadline of the caller, or the cap of the method, has passed.
    DeadlineExceeded,
    /// The `grpc-timeout` header is malformed.
    InvalidTimeout,
    /// A concurrency limit is reached.
    Overloaded,
    /// The connection or the instance is draining.
    Draining,
    /// The handler failed because of a bug.
    Internal,
}

impl Reason {
    /// All reasons that the server crate itself returns.
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

    /// Returns the text that `ErrorInfo` carries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageTooLarge => ErrorReason::MessageTooLarge,
            Self::Undecodable => ErrorReason::Undecodable,
            Self::UnknownMethod => ErrorReason::UnknownMethod,
            Self::UnsupportedEncoding => ErrorReason::UnsupportedEncoding,
            Self::Unauthenticated => ErrorReason::Unauthenticated,
            Self::PermissionDenied => ErrorReason::PermissionDenied,
            Self::DeadlineExceeded => ErrorReason::DeadlineExceeded,
            Self::InvalidTimeout => ErrorReason::InvalidTimeout,
            Self::Overloaded => ErrorReason::Overloaded,
            Self::Draining => ErrorReason::Draining,
            Self::Internal => ErrorReason::Internal,
        }
        .text()
    }

    /// Returns the gRPC code of the reason.
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

    /// Starts the reply to a call of this path.
    pub fn reply(self, path: &str, message: impl Into<String>) -> Reply {
        Reply::new(self.code(), domain(path), self.as_str(), message)
    }
}

/// Returns the error domain of calls to this path, e.g. `user.tidings`.
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
    fn errors_of_a_call_have_the_domain_of_its_contract() {
        assert_eq!(domain("/tidings.user.v1.UserService/GetUser"), "user.tidings");
        assert_eq!(domain("/tidings.broadcast.v1.Nonsense/GetUser"), "broadcast.tidings");
        assert_eq!(domain("/grpc.health.v1.Health/Check"), "server.tidings");
        assert_eq!(domain("/tidings.usher.v1.UserService/GetUser"), "server.tidings");
        assert_eq!(domain(""), "server.tidings");
    }
}
