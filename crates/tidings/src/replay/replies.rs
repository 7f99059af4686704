//! Parses the `.replies` file beside a log: which line replies to which.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{self, LogLineError, SkippedLines};

/// A parsed `.replies` file.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Line numbers that each line replies to, by the number of the replying line.
    pub(super) originals: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) malformed: SkippedLines,
}

/// Parses lines `A B -`: line B replies to line A. Ignores `A A -`, which marks the start of a
/// thread.
pub(super) fn parse(bytes: &[u8]) -> Replies {
    let mut replies = Replies::default();
    for (number, line) in log::lines(bytes) {
        match parse_line(&log::decode(line)) {
            Some((original, line)) if original == line => {}
            Some((original, line)) => {
                replies.originals.entry(line).or_default().insert(original);
            }
            None => replies.malformed.push(number, LogLineError::Reply),
        }
    }
    replies
}

fn parse_line(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (Some(original), Some(line), Some("-"), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return None;
    };
    let (original, line) = (original.parse().ok()?, line.parse().ok()?);
    (original <= line).then_some((original, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_reply_to_several_lines() {
        let replies = parse(b"1002 1005 -\n1003 1005 - \n1004 1004 -\n1002 1005 -\n");

        assert_eq!(replies.originals, BTreeMap::from([(1005, BTreeSet::from([1002, 1003]))]));
        assert_eq!(replies.malformed.count, 0);
    }

    #[test]
    fn malformed_lines_are_listed_by_number() {
        let replies = parse(b"1 2 -\n2 1 -\n1 2\n-1 2 -\n1 2 - -\n\n");

        let numbers: Vec<_> = replies.malformed.first.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(replies.originals.len(), 1);
    }
}
