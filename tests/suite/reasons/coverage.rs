//! Compares the reasons that calls have returned with the documented ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tidings_status::{Failure, code_name};

use super::ELSEWHERE;
use crate::support::root;

/// Documented and returned reasons of one service.
pub(super) struct ReasonCoverage {
    service: &'static str,
    /// Reasons with their codes from `docs/errors.md`, which another test compares with the
    /// contract.
    documented: BTreeMap<String, String>,
    seen: BTreeSet<String>,
}

impl ReasonCoverage {
    /// Reads the documented reasons of a service.
    pub(super) fn new(service: &'static str) -> Self {
        let document = fs::read_to_string(root().join("docs/errors.md")).unwrap();
        let (_, section) = document.split_once(&format!("\n## {service}.tidings\n")).unwrap();
        let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter_map(|line| {
            let (reason, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((reason.to_owned(), rest.split_once(" | ")?.0.to_owned()))
        });
        Self { service, documented: rows.collect(), seen: BTreeSet::new() }
    }

    /// Records a failed call and asserts its reason, domain, code, message and request id.
    pub(super) fn record(&mut self, reason: &str, result: Result<(), Failure>) -> Failure {
        let failure = result.expect_err(reason);
        assert_eq!(failure.reason, reason, "{failure}");
        assert_eq!(failure.domain, format!("{}.tidings", self.service), "{failure}");
        assert_eq!(Some(code_name(failure.code)), self.documented.get(reason).map(String::as_str), "{failure}");
        assert!(failure.request_id.is_some() && !failure.message.is_empty(), "{failure}");
        assert!(reason != "INTERNAL" || failure.message == "internal error", "{failure}");
        self.seen.insert(reason.to_owned());
        failure
    }

    /// Records a failed call that must also have a retry delay.
    pub(super) fn record_with_retry(&mut self, reason: &str, result: Result<(), Failure>) {
        let failure = self.record(reason, result);
        assert!(failure.retry_after.is_some(), "{failure}");
    }

    /// Asserts that every documented reason is recorded or covered by another test.
    pub(super) fn assert_complete(mut self) {
        let elsewhere = ELSEWHERE.iter().filter(|(service, ..)| *service == self.service);
        self.seen.extend(elsewhere.map(|(_, reason, ..)| (*reason).to_owned()));
        let documented: BTreeSet<_> = self.documented.into_keys().collect();
        assert_eq!(self.seen, documented, "{}", self.service);
    }
}
