//! The contracts compiled in: finds methods and messages by as much of their names as is unambiguous.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;

/// How alike a name must be (1: equal) to be worth proposing, by Jaro and Winkler: `GetUsr` is, `Frobnicate` is not.
const ALIKE: f64 = 0.8;
/// More proposals than this are no help.
const PROPOSALS: usize = 5;

/// Every contract of the suite.
#[derive(Debug)]
pub(crate) struct Contracts {
    pool: DescriptorPool,
}

/// A name that means nothing, or several things.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    /// Nothing is called like this.
    #[error("there is no {kind} {name}{}", propose("; did you mean", near))]
    Absent {
        /// What was looked for.
        kind: &'static str,
        /// The name.
        name: String,
        /// What is nearly called like this, or everything there is.
        near: Vec<String>,
    },
    /// Several things are called like this.
    #[error("{name} is ambiguous{}", propose("; one of", among))]
    Ambiguous {
        /// The name.
        name: String,
        /// The things.
        among: Vec<String>,
    },
}

fn propose(word: &str, names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("{word}:\n  {}", names.join("\n  ")),
    }
}

/// The name of a method as it is called: `tidings.user.v1.UserService/GetUser`.
pub(crate) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

impl Contracts {
    /// Reads the descriptors that the build made of `proto/`.
    #[expect(clippy::expect_used, reason = "the build wrote the set and a test reads it")]
    pub(crate) fn compiled_in() -> Self {
        let pool = DescriptorPool::decode(tidings_proto::DESCRIPTORS).expect("the compiled-in contracts are whole");
        Self { pool }
    }

    /// Every method, service by service in the order of the contracts.
    pub(crate) fn methods(&self) -> impl Iterator<Item = MethodDescriptor> {
        self.pool.services().flat_map(|service| service.methods().collect::<Vec<_>>())
    }

    /// The method of this name.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn method(&self, name: &str) -> Result<MethodDescriptor, Unknown> {
        pick("method", name, self.methods().map(|method| (full_name(&method), method)).collect())
    }

    /// The message of this name.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn message(&self, name: &str) -> Result<MessageDescriptor, Unknown> {
        let messages = self.pool.all_messages().filter(|message| !message.is_map_entry());
        pick("message", name, messages.map(|message| (message.full_name().to_owned(), message)).collect())
    }

    /// A message as proto3 JSON; `name` is its full name.
    #[expect(
        clippy::expect_used,
        reason = "the message and its descriptor come from one contract, as tests of each verb show"
    )]
    pub(crate) fn json(&self, name: &str, message: &impl Message) -> Value {
        let descriptor = self.pool.get_message_by_name(name).expect("the contracts have the message");
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
        serde_json::to_value(message.expect("what was encoded can be decoded")).expect("every message has its JSON")
    }
}

/// Picks the one thing whose full name is `name`, or ends with it after a `.` or a `/`.
fn pick<T>(kind: &'static str, name: &str, things: Vec<(String, T)>) -> Result<T, Unknown> {
    let is_meant = |full: &str| {
        full.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(['.', '/']))
            && !name.is_empty()
    };
    let mut names = Vec::new();
    let mut picked = Vec::new();
    for (full, thing) in things {
        if is_meant(&full) {
            picked.push((full, thing));
        } else {
            names.push(full);
        }
    }
    match (picked.len(), picked.pop()) {
        (1, Some((_, thing))) => Ok(thing),
        (_, Some(last)) => {
            let among = picked.into_iter().chain([last]).map(|(full, _)| full).collect();
            Err(Unknown::Ambiguous { name: name.to_owned(), among })
        }
        (_, None) => Err(Unknown::Absent { kind, name: name.to_owned(), near: near(name, names) }),
    }
}

/// The names most like `name`, best first; all names if none is, but not when these are too many to read.
fn near(name: &str, names: Vec<String>) -> Vec<String> {
    const READABLE: usize = 40;
    let last = |full: &str| full.rsplit(['.', '/']).next().unwrap_or_default().to_lowercase();
    let wanted = last(name);
    let mut alike: Vec<_> = names
        .iter()
        .map(|full| (strsim::jaro_winkler(&wanted, &last(full)), full))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    match alike.len() {
        0 if names.len() <= READABLE => names,
        _ => alike.into_iter().take(PROPOSALS).map(|(_, full)| full.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Result<String, Unknown> {
        Contracts::compiled_in().method(name).map(|method| full_name(&method))
    }

    #[test]
    fn a_method_is_named_as_far_as_it_is_unambiguous() {
        for name in
            ["tidings.user.v1.UserService/GetUser", "user.v1.UserService/GetUser", "UserService/GetUser", "GetUser"]
        {
            assert_eq!(method(name).unwrap(), "tidings.user.v1.UserService/GetUser");
        }
    }

    #[test]
    fn part_of_a_word_is_no_name() {
        assert!(method("User").is_err());
        assert!(method("").is_err());
    }

    #[test]
    fn a_slip_of_the_pen_is_answered_with_near_names() {
        let text = method("user.v1.UserService/GetUsr").unwrap_err().to_string();

        assert!(text.contains("there is no method user.v1.UserService/GetUsr; did you mean:"), "{text}");
        assert!(text.contains("\n  tidings.user.v1.UserService/GetUser"), "{text}");
    }

    #[test]
    fn a_name_like_no_other_is_answered_with_all_there_are() {
        let text = method("zzz").unwrap_err().to_string();

        assert_eq!(text.lines().count(), 1 + Contracts::compiled_in().methods().count());
    }

    #[test]
    fn a_message_in_two_packages_is_ambiguous() {
        let text = Contracts::compiled_in().message("ReadInfo").unwrap_err().to_string();

        assert!(text.contains("tidings.user.v1.ReadInfo") && text.contains("tidings.history.v1.ReadInfo"), "{text}");
    }
}
