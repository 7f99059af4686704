//! Properties of each method that its messages do not show, one line per method.
//!
//! The server enforces them, the client retries by them; `deploy/service_config.json` and
//! `docs/methods.md` are generated from them.

use std::time::Duration;

/// A method of a contract.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Full name, e.g. `tidings.user.v1.UserService/GetUser`.
    pub name: &'static str,
    /// Longest duration, and the limit that it counts towards.
    pub work: Work,
    /// Scope that the token of a caller must have.
    pub scope: Scope,
    /// Condition under which a retry is safe.
    pub retry: Retry,
}

/// Longest duration of a call, and the limit that it counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A unary call that works all the time: counts as in flight. Ends after this duration.
    Brief(Duration),
    /// A unary call that mostly waits, with a limit of its own: does not count as in flight. Ends
    /// after this duration.
    Waiting(Duration),
    /// A server stream: ends when its caller, its connection or the process does.
    Stream,
}

/// Permission that a call requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Reads data of any caller.
    Read,
    /// Creates or changes data.
    Write,
    /// Changes data of other callers.
    Admin,
    /// Publishes to the channels that belong to a service, such as `conversation/`. No method needs
    /// it by itself.
    Relay,
}

/// Condition under which a call without a response may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Always: the method is idempotent.
    Safe,
    /// Only if this field of the request is set.
    With(&'static str),
    /// As a new call, from the position of the last message.
    Resume,
}

/// Far longer than any call of a healthy service takes.
const BRIEF: Work = Work::Brief(Duration::from_secs(5));
/// The longest wait for a lock (60 s), and time to respond.
const ACQUIRE: Work = Work::Waiting(Duration::from_secs(62));

/// Every method of every contract.
pub const METHODS: &[Method] = &[
    method("tidings.user.v1.UserService/CreateUser", BRIEF, Scope::Write, Retry::With("user.id or request_id")),
    method("tidings.user.v1.UserService/GetUser", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.user.v1.UserService/GetUserByHandle", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.user.v1.UserService/BatchGetUsers", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.user.v1.UserService/ListUsers", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.user.v1.UserService/UpdateUser", BRIEF, Scope::Write, Retry::With("expected_version")),
    method("tidings.user.v1.UserService/DeleteUser", BRIEF, Scope::Write, Retry::With("expected_version")),
    method("tidings.user.v1.UserService/WatchUsers", Work::Stream, Scope::Read, Retry::Safe),
    method(
        "tidings.history.v1.ConversationService/CreateConversation",
        BRIEF,
        Scope::Write,
        Retry::With("conversation.id or request_id"),
    ),
    method("tidings.history.v1.ConversationService/GetConversation", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.history.v1.HistoryService/AppendMessage", BRIEF, Scope::Write, Retry::Safe),
    method("tidings.history.v1.HistoryService/BatchAppendMessages", BRIEF, Scope::Write, Retry::Safe),
    method("tidings.history.v1.HistoryService/GetMessage", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.history.v1.HistoryService/ListMessages", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.history.v1.HistoryService/ListUserMessages", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.lock.v1.LockService/AcquireLock", ACQUIRE, Scope::Write, Retry::With("request_id")),
    method("tidings.lock.v1.LockService/RenewLock", BRIEF, Scope::Write, Retry::Safe),
    method("tidings.lock.v1.LockService/ReleaseLock", BRIEF, Scope::Write, Retry::Safe),
    method("tidings.lock.v1.LockService/CheckLock", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.lock.v1.LockService/GetLock", BRIEF, Scope::Read, Retry::Safe),
    method("tidings.broadcast.v1.BroadcastService/Publish", BRIEF, Scope::Write, Retry::With("request_id")),
    method(
        "tidings.broadcast.v1.BroadcastService/BatchPublish",
        BRIEF,
        Scope::Write,
        Retry::With("requests.request_id"),
    ),
    method("tidings.broadcast.v1.BroadcastService/Subscribe", Work::Stream, Scope::Read, Retry::Resume),
    method("tidings.broadcast.v1.BroadcastService/GetChannel", BRIEF, Scope::Read, Retry::Safe),
];

const fn method(name: &'static str, work: Work, scope: Scope, retry: Retry) -> Method {
    Method { name, work, scope, retry }
}

impl Method {
    /// Full name of the contract, e.g. `tidings.user.v1.UserService`.
    pub fn contract(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(contract, _)| contract)
    }

    /// Name within the contract, e.g. `GetUser`.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(_, name)| name)
    }

    /// Name of the service in scopes and error domains, e.g. `user`.
    pub fn service(&self) -> &'static str {
        self.name.split('.').nth(1).unwrap_or(self.name)
    }

    /// Longest duration; `None` for a stream.
    pub fn cap(&self) -> Option<Duration> {
        match self.work {
            Work::Brief(cap) | Work::Waiting(cap) => Some(cap),
            Work::Stream => None,
        }
    }
}

impl Scope {
    /// Name of the scope in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Relay => "relay",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Returns every method of the contracts, with `true` for a server stream.
    fn contracts() -> BTreeSet<(String, bool)> {
        let set = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let mut methods = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package().starts_with("tidings.")) {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    methods.insert((name, method.server_streaming()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_of_the_contracts_has_one_line() {
        let lines = METHODS.iter().map(|method| (method.name.to_owned(), method.work == Work::Stream));

        assert_eq!(lines.clone().count(), METHODS.len());
        assert_eq!(lines.collect::<BTreeSet<_>>(), contracts());
    }

    #[test]
    fn a_method_knows_its_contract_and_its_service() {
        let method = METHODS.iter().find(|method| method.short_name() == "AppendMessage").unwrap();

        assert_eq!(method.contract(), "tidings.history.v1.HistoryService");
        assert_eq!(method.service(), "history");
    }
}
