//! What is to be sent: users, conversations, messages and what they answer. No service is asked here.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use tidings_proto::history::{AppendMessageRequest, Body, body};

use super::files::Source;
use super::log::{Line, Log};
use super::names;
use super::replies::Replies;

/// Everything that a replay sends.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The conversations, in the order of the files.
    pub(super) conversations: Vec<Conversation>,
    /// The users by id, with the first spelling of their nicks.
    pub(super) users: BTreeMap<String, String>,
    /// What was counted on the way.
    pub(super) input: Input,
}

/// What the files held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Input {
    /// Lines of logs, of any kind.
    pub(super) lines: usize,
    /// Lines that nobody said.
    pub(super) system: usize,
    /// Lines of logs that are nothing.
    pub(super) malformed: usize,
    /// Lines of `.replies` that are nothing.
    pub(super) malformed_replies: usize,
    /// Bytes of messages that are not UTF-8.
    pub(super) replaced_bytes: usize,
    /// Messages that say which message they answer.
    pub(super) replies_linked: usize,
    /// Further messages that these answer: a message can say one.
    pub(super) replies_other: usize,
    /// Replies where the answer, or what it answers, is a line that was not sent.
    pub(super) replies_unsent: usize,
}

/// A conversation that is to be there afterwards, and nothing else in it.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Its id.
    pub(super) id: String,
    /// Its title.
    pub(super) title: String,
    /// The log it comes from.
    pub(super) path: PathBuf,
    /// Its messages: the first has seq 1.
    pub(super) messages: Vec<Message>,
}

impl Conversation {
    /// The number of its newest message; 0 if it has none.
    pub(super) fn last_seq(&self) -> i64 {
        self.messages.last().map_or(0, |message| message.seq)
    }
}

/// A message that is to be there afterwards.
#[derive(Debug)]
pub(super) struct Message {
    /// The line it comes from.
    pub(super) line: usize,
    /// Its number in the conversation.
    pub(super) seq: i64,
    /// How it is sent.
    pub(super) request: AppendMessageRequest,
}

impl Plan {
    /// Adds the conversation of one log.
    pub(super) fn add(&mut self, source: Source, log: Log, replies: &Replies) {
        self.input.lines += log.total;
        self.input.system += log.system;
        self.input.malformed += log.malformed.count;
        self.input.malformed_replies += replies.malformed.count;
        self.input.replaced_bytes += log.replaced_bytes;

        let targets = self.link(&log, replies);
        let messages = (1..).zip(log.lines).map(|(seq, line)| {
            self.users.entry(line.user_id.clone()).or_insert_with(|| line.nick.clone());
            let answers = targets.get(&line.number).copied().unwrap_or_default();
            Message { line: line.number, seq, request: request(&source.id, line, answers) }
        });
        let messages = messages.collect();
        self.conversations.push(Conversation { id: source.id, title: source.title, path: source.path, messages });
    }

    /// For each line that answers one, the seq of the last line answered that is sent before it.
    fn link(&mut self, log: &Log, replies: &Replies) -> HashMap<usize, i64> {
        let sent: HashMap<usize, i64> = log.lines.iter().map(|line| line.number).zip(1..).collect();
        let mut targets = HashMap::new();
        for (line, answered) in &replies.answered {
            let mut seqs: Vec<i64> = answered.iter().filter_map(|line| sent.get(line).copied()).collect();
            if !sent.contains_key(line) {
                seqs.clear();
            }
            self.input.replies_unsent += answered.len() - seqs.len();
            if let Some(last) = seqs.pop() {
                self.input.replies_linked += 1;
                self.input.replies_other += seqs.len();
                targets.insert(*line, last);
            }
        }
        targets
    }
}

fn request(conversation_id: &str, line: Line, reply_to_seq: i64) -> AppendMessageRequest {
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

/// Says whether two names to show are those of one user.
pub(super) fn same_user(one: &str, other: &str) -> bool {
    names::fold(one) == names::fold(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{log, replies};

    fn plan(files: &[(&str, &str)]) -> Plan {
        let mut plan = Plan::default();
        for (number, (log, replies)) in files.iter().enumerate() {
            let source = Source { path: PathBuf::new(), id: format!("irc-{number}"), title: format!("{number}.log") };
            plan.add(source, log::parse(log.as_bytes()), &replies::parse(replies.as_bytes()));
        }
        plan
    }

    #[test]
    fn every_line_that_was_said_is_a_message_with_a_number() {
        let plan = plan(&[("=== in\n[12:59] <Ada> hi\n[01:00]  * ada waves\n", "")]);

        let [hi, waves] = plan.conversations[0].messages.as_slice() else { panic!("{plan:?}") };
        assert_eq!((hi.line, hi.seq, waves.line, waves.seq), (1, 1, 2, 2));
        let request = &waves.request;
        assert_eq!((request.sender_id.as_str(), request.client_message_id.as_str()), ("irc-ada", "l2"));
        let attributes: Vec<_> = request.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(attributes, ["kind=action", "line=2", "nick=ada", "time=01:00"]);
    }

    #[test]
    fn a_user_is_shown_as_spelled_first_over_all_files() {
        let plan = plan(&[("[00:00] <ADA> 1\n[00:00] <ada> 2\n", ""), ("[00:00] <Ada> 3\n[00:00] <Bo> 4\n", "")]);

        assert_eq!(plan.users, BTreeMap::from([("irc-ada".into(), "ADA".into()), ("irc-bo".into(), "Bo".into())]));
    }

    #[test]
    fn the_last_answered_line_that_was_sent_is_linked_and_the_others_are_counted() {
        let log = "[00:00] <a> 0\n[00:00] <b> 1\n=== 2\n[00:00] <c> 3\n[00:00] <d> 4\n";
        let plan = plan(&[(log, "0 3 -\n1 3 -\n2 3 -\n2 4 -\n0 2 -\n1 1 -\n4 9 -\n")]);

        let links: Vec<_> = plan.conversations[0].messages.iter().map(|message| message.request.reply_to_seq).collect();
        assert_eq!(links, [0, 0, 2, 0]);
        let input = plan.input;
        assert_eq!((input.replies_linked, input.replies_other, input.replies_unsent), (1, 1, 4));
    }
}
