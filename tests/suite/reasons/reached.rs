//! Which reasons of a service have been reached, and which there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tidings_status::{Failure, code_name};

use super::ELSEWHERE;
use crate::support::root;

/// The reasons of one service.
pub(super) struct Reached {
    service: &'static str,
    /// As `docs/errors.md` lists them, which another test holds equal to the contract.
    documented: BTreeMap<String, String>,
    seen: BTreeSet<String>,
}

impl Reached {
    /// None yet.
    pub(super) fn of(service: &'static str) -> Self {
        let document = fs::read_to_string(root().join("docs/errors.md")).unwrap();
        let (_, section) = document.split_once(&format!("\n## {service}.tidings\n")).unwrap();
        let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter_map(|line| {
            let (reason, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((reason.to_owned(), rest.split_once(" | ")?.0.to_owned()))
        });
        Self { service, documented: rows.collect(), seen: BTreeSet::new() }
    }

    /// Takes note of an answer, which has to fail for this reason, and to say so completely.
    pub(super) fn note(&mut self, reason: &str, answer: Result<(), Failure>) -> Failure {
        let failure = answer.expect_err(reason);
        assert_eq!(failure.reason, reason, "{failure}");
        assert_eq!(failure.domain, format!("{}.tidings", self.service), "{failure}");
        assert_eq!(Some(code_name(failure.code)), self.documented.get(reason).map(String::as_str), "{failure}");
        assert!(failure.request_id.is_some() && !failure.message.is_empty(), "{failure}");
        assert!(reason != "INTERNAL" || failure.message == "internal error", "{failure}");
        self.seen.insert(reason.to_owned());
        failure
    }

    /// Takes note of an answer that tells when to try again, besides.
    pub(super) fn note_retry(&mut self, reason: &str, answer: Result<(), Failure>) {
        let failure = self.note(reason, answer);
        assert!(failure.retry_after.is_some(), "{failure}");
    }

    /// # Panics
    /// If a reason was not reached, here or elsewhere.
    pub(super) fn assert_all(mut self) {
        let elsewhere = ELSEWHERE.iter().filter(|(service, ..)| *service == self.service);
        self.seen.extend(elsewhere.map(|(_, reason, ..)| (*reason).to_owned()));
        let documented: BTreeSet<_> = self.documented.into_keys().collect();
        assert_eq!(self.seen, documented, "{}", self.service);
    }
}
