//! The plan of a replay: users, conversations, messages and replies. Calls no service.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use tidings_proto::history::{AppendMessageRequest, Body, body};

use super::files::LogFile;
use super::ids;
use super::log::{ChatLog, LogLine};
use super::replies::Replies;

/// The users and conversations that a replay sends.
#[derive(Debug, Default)]
pub(super) struct ReplayPlan {
    /// Conversations, in the order of the files.
    pub(super) conversations: Vec<PlannedConversation>,
    /// Display names of the users by id: the first spelling of each nick.
    pub(super) users: BTreeMap<String, String>,
    pub(super) input: InputCounts,
}

/// Counts of the parsed files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InputCounts {
    /// Lines of logs, of any kind.
    pub(super) lines: usize,
    /// System lines of logs: `=== ...`.
    pub(super) system: usize,
    /// Malformed lines of logs.
    pub(super) malformed: usize,
    /// Malformed lines of `.replies` files.
    pub(super) malformed_replies: usize,
    /// Bytes of messages that are not UTF-8.
    pub(super) replaced_bytes: usize,
    /// Messages with a `reply_to_seq`.
    pub(super) replies_linked: usize,
    /// Further lines that these messages reply to; a message can refer to one only.
    pub(super) replies_other: usize,
    /// Replies from or to a line that is not sent.
    pub(super) replies_unsent: usize,
}

/// A conversation to create, with exactly these messages.
#[derive(Debug)]
pub(super) struct PlannedConversation {
    pub(super) id: String,
    pub(super) title: String,
    /// Path of its log.
    pub(super) path: PathBuf,
    /// Messages by seq; the first has seq 1.
    pub(super) messages: Vec<PlannedMessage>,
}

impl PlannedConversation {
    /// Returns the seq of its newest message; 0 if it has none.
    pub(super) fn last_seq(&self) -> i64 {
        self.messages.last().map_or(0, |message| message.seq)
    }
}

/// A message to append.
#[derive(Debug)]
pub(super) struct PlannedMessage {
    /// Number of its line in the log, from 0.
    pub(super) line: usize,
    /// Expected seq in the conversation, from 1.
    pub(super) seq: i64,
    pub(super) request: AppendMessageRequest,
}

impl ReplayPlan {
    /// Adds the conversation of one log.
    pub(super) fn add(&mut self, file: LogFile, log: ChatLog, replies: &Replies) {
        self.input.lines += log.total;
        self.input.system += log.system;
        self.input.malformed += log.malformed.count;
        self.input.malformed_replies += replies.malformed.count;
        self.input.replaced_bytes += log.replaced_bytes;

        let targets = self.link(&log, replies);
        let messages = (1..).zip(log.lines).map(|(seq, line)| {
            self.users.entry(line.user_id.clone()).or_insert_with(|| line.nick.clone());
            let reply_to_seq = targets.get(&line.number).copied().unwrap_or_default();
            PlannedMessage { line: line.number, seq, request: request(&file.id, line, reply_to_seq) }
        });
        let messages = messages.collect();
        self.conversations.push(PlannedConversation { id: file.id, title: file.title, path: file.path, messages });
    }

    /// Returns, for each line that is a reply, the seq of the last line that it replies to and that
    /// is sent.
    fn link(&mut self, log: &ChatLog, replies: &Replies) -> HashMap<usize, i64> {
        let sent: HashMap<usize, i64> = log.lines.iter().map(|line| line.number).zip(1..).collect();
        let mut targets = HashMap::new();
        for (line, originals) in &replies.originals {
            let mut seqs: Vec<i64> = originals.iter().filter_map(|line| sent.get(line).copied()).collect();
            if !sent.contains_key(line) {
                seqs.clear();
            }
            self.input.replies_unsent += originals.len() - seqs.len();
            if let Some(last) = seqs.pop() {
                self.input.replies_linked += 1;
                self.input.replies_other += seqs.len();
                targets.insert(*line, last);
            }
        }
        targets
    }
}

fn request(conversation_id: &str, line: LogLine, reply_to_seq: i64) -> AppendMessageRequest {
    let attributes = [
        ("line", line.number.to_string()),
        ("nick", line.nick),
        ("time", line.time),
        ("kind", line.kind.name().to_owned()),
    ];
    AppendMessageRequest {
        conversation_id: conversation_id.to_owned(),
        sender_id: line.user_id,
        client_message_id: format!("l{}", line.number),
        body: Some(Body { content: Some(body::Content::Text(line.text)) }),
        reply_to_seq,
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// Returns whether two display names belong to the same user: they differ at most in case.
pub(super) fn same_user(one: &str, other: &str) -> bool {
    ids::fold(one) == ids::fold(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{log, replies};

    fn plan(files: &[(&str, &str)]) -> ReplayPlan {
        let mut plan = ReplayPlan::default();
        for (number, (log, replies)) in files.iter().enumerate() {
            let file = LogFile { path: PathBuf::new(), id: format!("irc-{number}"), title: format!("{number}.log") };
            plan.add(file, log::parse(log.as_bytes()), &replies::parse(replies.as_bytes()));
        }
        plan
    }

    #[test]
    fn every_message_line_becomes_a_message_with_a_seq() {
        let plan = plan(&[("=== in\n[12:59] <Ada> hi\n[01:00]  * ada waves\n", "")]);

        let [hi, waves] = plan.conversations[0].messages.as_slice() else { panic!("{plan:?}") };
        assert_eq!((hi.line, hi.seq, waves.line, waves.seq), (1, 1, 2, 2));
        let request = &waves.request;
        assert_eq!((request.sender_id.as_str(), request.client_message_id.as_str()), ("irc-ada", "l2"));
        let attributes: Vec<_> = request.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(attributes, ["kind=action", "line=2", "nick=ada", "time=01:00"]);
    }

    #[test]
    fn a_user_has_the_first_spelling_of_the_nick_over_all_files() {
        let plan = plan(&[("[00:00] <ADA> 1\n[00:00] <ada> 2\n", ""), ("[00:00] <Ada> 3\n[00:00] <Bo> 4\n", "")]);

        assert_eq!(plan.users, BTreeMap::from([("irc-ada".into(), "ADA".into()), ("irc-bo".into(), "Bo".into())]));
    }

    /// A message is linked to the last sent line that it replies to. Further and unsent lines are
    /// counted.
    #[test]
    fn a_reply_is_linked_to_the_last_sent_line() {
        let log = "[00:00] <a> 0\n[00:00] <b> 1\n=== 2\n[00:00] <c> 3\n[00:00] <d> 4\n";
        let plan = plan(&[(log, "0 3 -\n1 3 -\n2 3 -\n2 4 -\n0 2 -\n1 1 -\n4 9 -\n")]);

        let links: Vec<_> = plan.conversations[0].messages.iter().map(|message| message.request.reply_to_seq).collect();
        assert_eq!(links, [0, 0, 2, 0]);
        let input = plan.input;
        assert_eq!((input.replies_linked, input.replies_other, input.replies_unsent), (1, 1, 4));
    }
}
