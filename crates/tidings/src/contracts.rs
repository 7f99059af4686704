//! The compiled-in contracts. Methods and messages are found by any unambiguous end of their names.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;

/// Jaro-Winkler similarity (1: equal) from which on a name is suggested: `GetUsr` for `GetUser`,
/// but not `Frobnicate`.
const SIMILARITY_MIN: f64 = 0.8;
/// Maximum number of suggestions.
const SUGGESTIONS_MAX: usize = 5;

/// The descriptors of every contract.
#[derive(Debug)]
pub(crate) struct Contracts {
    pool: DescriptorPool,
}

/// Error of a name that matches nothing, or more than one thing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnresolvedName {
    /// No name matches.
    #[error("no such {kind}: {name}{}", suffix("; did you mean", suggestions))]
    Absent {
        /// `method` or `message`.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// Similar names, or all names if none is similar.
        suggestions: Vec<String>,
    },
    /// Several names match.
    #[error("{name} is ambiguous{}", suffix("; candidates", candidates))]
    Ambiguous {
        /// The requested name.
        name: String,
        /// The full names that match.
        candidates: Vec<String>,
    },
}

fn suffix(intro: &str, names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("{intro}:\n  {}", names.join("\n  ")),
    }
}

/// Returns the full name of a method: `tidings.user.v1.UserService/GetUser`.
pub(crate) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

impl Contracts {
    /// Decodes the descriptors that the build compiled from `proto/`.
    #[expect(clippy::expect_used, reason = "the build wrote the descriptors and a test reads them")]
    pub(crate) fn compiled_in() -> Self {
        let pool = DescriptorPool::decode(tidings_proto::DESCRIPTORS).expect("the compiled-in contracts are valid");
        Self { pool }
    }

    /// Iterates over all methods, by service, in the order of the contracts.
    pub(crate) fn methods(&self) -> impl Iterator<Item = MethodDescriptor> {
        self.pool.services().flat_map(|service| service.methods().collect::<Vec<_>>())
    }

    /// Finds the method of this name.
    ///
    /// # Errors
    /// No method or more than one matches.
    pub(crate) fn method(&self, name: &str) -> Result<MethodDescriptor, UnresolvedName> {
        pick("method", name, self.methods().map(|method| (full_name(&method), method)).collect())
    }

    /// Finds the message of this name.
    ///
    /// # Errors
    /// No message or more than one matches.
    pub(crate) fn message(&self, name: &str) -> Result<MessageDescriptor, UnresolvedName> {
        let messages = self.pool.all_messages().filter(|message| !message.is_map_entry());
        pick("message", name, messages.map(|message| (message.full_name().to_owned(), message)).collect())
    }

    /// Converts a message to proto3 JSON; `name` is the full name of its type.
    #[expect(
        clippy::expect_used,
        reason = "the message and its descriptor come from one contract, as tests of each verb show"
    )]
    pub(crate) fn json(&self, name: &str, message: &impl Message) -> Value {
        let descriptor = self.pool.get_message_by_name(name).expect("the contracts define the message");
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
        serde_json::to_value(message.expect("an encoded message can be decoded")).expect("every message maps to JSON")
    }
}

/// Picks the one item whose full name is `name`, or ends with it after a `.` or a `/`.
fn pick<T>(kind: &'static str, name: &str, items: Vec<(String, T)>) -> Result<T, UnresolvedName> {
    let matches = |full: &str| {
        full.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(['.', '/']))
            && !name.is_empty()
    };
    let mut names = Vec::new();
    let mut picked = Vec::new();
    for (full, item) in items {
        if matches(&full) {
            picked.push((full, item));
        } else {
            names.push(full);
        }
    }
    match (picked.len(), picked.pop()) {
        (1, Some((_, item))) => Ok(item),
        (_, Some(last)) => {
            let candidates = picked.into_iter().chain([last]).map(|(full, _)| full).collect();
            Err(UnresolvedName::Ambiguous { name: name.to_owned(), candidates })
        }
        (_, None) => Err(UnresolvedName::Absent { kind, name: name.to_owned(), suggestions: suggestions(name, names) }),
    }
}

/// Returns the names most similar to `name`, best first. If none is similar, returns all names,
/// or nothing if they are too many to read.
fn suggestions(name: &str, names: Vec<String>) -> Vec<String> {
    const READABLE_MAX: usize = 40;
    let last = |full: &str| full.rsplit(['.', '/']).next().unwrap_or_default().to_lowercase();
    let wanted = last(name);
    let mut similar: Vec<_> = names
        .iter()
        .map(|full| (strsim::jaro_winkler(&wanted, &last(full)), full))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .collect();
    similar.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    match similar.len() {
        0 if names.len() <= READABLE_MAX => names,
        _ => similar.into_iter().take(SUGGESTIONS_MAX).map(|(_, full)| full.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Result<String, UnresolvedName> {
        Contracts::compiled_in().method(name).map(|method| full_name(&method))
    }

    #[test]
    fn a_method_is_found_by_any_unambiguous_end_of_its_name() {
        for name in
            ["tidings.user.v1.UserService/GetUser", "user.v1.UserService/GetUser", "UserService/GetUser", "GetUser"]
        {
            assert_eq!(method(name).unwrap(), "tidings.user.v1.UserService/GetUser");
        }
    }

    #[test]
    fn part_of_a_word_matches_nothing() {
        assert!(method("User").is_err());
        assert!(method("").is_err());
    }

    #[test]
    fn a_misspelled_name_gets_suggestions() {
        let text = method("user.v1.UserService/GetUsr").unwrap_err().to_string();

        assert!(text.contains("no such method: user.v1.UserService/GetUsr; did you mean:"), "{text}");
        assert!(text.contains("\n  tidings.user.v1.UserService/GetUser"), "{text}");
    }

    #[test]
    fn a_name_similar_to_no_other_gets_all_names() {
        let text = method("zzz").unwrap_err().to_string();

        assert_eq!(text.lines().count(), 1 + Contracts::compiled_in().methods().count());
    }

    #[test]
    fn a_message_in_two_packages_is_ambiguous() {
        let text = Contracts::compiled_in().message("ReadInfo").unwrap_err().to_string();

        assert!(text.contains("tidings.user.v1.ReadInfo") && text.contains("tidings.history.v1.ReadInfo"), "{text}");
    }
}
