//! What is promised of each method besides its messages, one line a method: the server enforces it, the client repeats by
//! it, `deploy/service_config.json` and `docs/methods.md` are written from it.

use std::time::Duration;

/// A method of a contract.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its full name, e.g. `tidings.user.v1.UserService/GetUser`.
    pub name: &'static str,
    /// How long it may take.
    pub work: Work,
    /// What a caller needs to be allowed.
    pub scope: Scope,
    /// What may be repeated.
    pub retry: Retry,
}

/// How long a call may take, and what it is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One answer, worked on all the time: counts as a call in flight. Over after this long.
    Brief(Duration),
    /// One answer that is mostly waited for, within a limit of its own: no call in flight. Over after this long.
    Waiting(Duration),
    /// A stream of answers that ends when its caller, its connection or the process does.
    Stream,
}

/// What a caller does to the data, and must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Sees.
    Read,
    /// Changes.
    Write,
    /// Changes what is not its own.
    Admin,
}

/// When a call whose answer was lost may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Whenever: it changes nothing, or a repeat changes nothing more.
    Safe,
    /// If this field of the request is set.
    With(&'static str),
    /// As a new call, from the position of the last message.
    Resume,
}

/// How long a call of a healthy service takes at the very most.
const BRIEF: Work = Work::Brief(Duration::from_secs(5));
/// The longest wait for a lock, and time to say so.
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
    /// The full name of its contract, e.g. `tidings.user.v1.UserService`.
    pub fn contract(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(contract, _)| contract)
    }

    /// Its name within the contract, e.g. `GetUser`.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(_, name)| name)
    }

    /// The service whose contract it belongs to, as scopes and error domains call it, e.g. `user`.
    pub fn service(&self) -> &'static str {
        self.name.split('.').nth(1).unwrap_or(self.name)
    }

    /// How long it may take; `None` for a stream.
    pub fn cap(&self) -> Option<Duration> {
        match self.work {
            Work::Brief(cap) | Work::Waiting(cap) => Some(cap),
            Work::Stream => None,
        }
    }
}

impl Scope {
    /// As tokens name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every method of the contracts, and whether it answers with a stream.
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
