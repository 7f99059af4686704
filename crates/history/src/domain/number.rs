//! How a batch of appends is numbered: pure rules over what was found under the locks.

use std::collections::HashMap;

use crate::model::{ConversationNo, NewMessage};
use crate::store::{Found, Key, Numbered, Verdict};

/// Numbers what is new, in the order given.
///
/// For each item, in this order: no conversation, no message; a key that is taken, by a message in Postgres or by an item
/// before, is a repeat if the content is the same and refused if it is not; a reply must answer what has a number.
/// Repeats come before the rules on content, so that a late retry always hears what the first try heard.
pub(super) fn number(messages: &[NewMessage], found: &Found) -> Vec<Verdict> {
    let mut last_seqs: HashMap<ConversationNo, i64> =
        found.conversations.values().map(|row| (row.no, row.last_seq)).collect();
    let mut earlier: HashMap<Key, (usize, [u8; 32], i64)> = HashMap::new();
    let mut verdicts = Vec::with_capacity(messages.len());
    for (place, message) in messages.iter().enumerate() {
        let Some(conversation) = found.conversations.get(&message.conversation) else {
            verdicts.push(Verdict::NoConversation);
            continue;
        };
        let key = Key::of(conversation.no, message);
        if let Some((fingerprint, seq)) = found.messages.get(&key) {
            let same = fingerprint[..] == message.fingerprint;
            verdicts.push(if same { Verdict::Repeat { seq: *seq } } else { Verdict::KeyReused { seq: *seq } });
            continue;
        }
        if let Some((place, fingerprint, seq)) = earlier.get(&key) {
            let same = *fingerprint == message.fingerprint;
            verdicts.push(if same { Verdict::SameAs { place: *place } } else { Verdict::KeyReused { seq: *seq } });
            continue;
        }
        let last_seq = last_seqs.entry(conversation.no).or_insert(conversation.last_seq);
        if message.reply_to_seq > *last_seq {
            verdicts.push(Verdict::NoReplyTarget { last_seq: *last_seq });
            continue;
        }
        *last_seq += 1;
        earlier.insert(key, (place, message.fingerprint, *last_seq));
        verdicts.push(Verdict::New(Numbered { conversation: conversation.no, seq: *last_seq }));
    }
    verdicts
}
