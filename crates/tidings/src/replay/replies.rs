//! Reads which line answers which: the `.replies` file beside a log.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{self, Fault, Malformed};

/// What a `.replies` file says.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// For each line that answers others, these.
    pub(super) answered: BTreeMap<usize, BTreeSet<usize>>,
    /// The lines that are nothing.
    pub(super) malformed: Malformed,
}

/// Reads `A B -` in each line: line B answers line A. `A A -` says that line A begins something, and is left out.
pub(super) fn parse(bytes: &[u8]) -> Replies {
    let mut replies = Replies::default();
    for (number, line) in log::lines(bytes) {
        match parse_line(&log::decode(line)) {
            Some((answered, line)) if answered == line => {}
            Some((answered, line)) => {
                replies.answered.entry(line).or_default().insert(answered);
            }
            None => replies.malformed.push(number, Fault::Reply),
        }
    }
    replies
}

fn parse_line(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (Some(answered), Some(line), Some("-"), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return None;
    };
    let (answered, line) = (answered.parse().ok()?, line.parse().ok()?);
    (answered <= line).then_some((answered, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_answer_several() {
        let replies = parse(b"1002 1005 -\n1003 1005 - \n1004 1004 -\n1002 1005 -\n");

        assert_eq!(replies.answered, BTreeMap::from([(1005, BTreeSet::from([1002, 1003]))]));
        assert_eq!(replies.malformed.count, 0);
    }

    #[test]
    fn what_is_no_reply_is_told_by_its_number() {
        let replies = parse(b"1 2 -\n2 1 -\n1 2\n-1 2 -\n1 2 - -\n\n");

        let numbers: Vec<_> = replies.malformed.first.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(replies.answered.len(), 1);
    }
}
