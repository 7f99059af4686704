//! Argument types, value parsers and the retry policy that several verbs share.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;
use tidings_client::Policy;

/// Output format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for people
    Table,
    /// JSON, indented
    Json,
    /// JSON, one line for each result
    Jsonl,
}

impl Output {
    /// Formats one JSON value: in one line for `Jsonl`, else indented.
    pub(crate) fn json(self, value: &Value) -> String {
        if self == Self::Jsonl { value.to_string() } else { format!("{value:#}") }
    }
}

/// Returns the retry policy of interactive verbs. Retries continue for 2 s: long enough to reach
/// another instance, short enough for a user at a prompt.
pub(crate) fn policy(timeout: Duration) -> Policy {
    const PATIENCE: Duration = Duration::from_secs(2);
    Policy { timeout, patience: PATIENCE, budget: None }
}

/// Parses a duration above zero, e.g. `800ms` or `5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) | Err(_) => Err("expected a duration like 800ms or 5s".to_owned()),
        Ok(duration) => Ok(duration),
    }
}

/// Parses a duration, zero included.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration like 0s, 800ms or 5s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_above_zero_unless_zero_is_allowed() {
        assert_eq!(duration("800ms"), Ok(Duration::from_millis(800)));
        assert!(duration("0s").is_err());
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert!(duration("5x").is_err());
    }
}
