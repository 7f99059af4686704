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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Body, ConversationId, UserId};
    use crate::store::ConversationRow;

    const CONVERSATIONS: [&str; 3] = ["lobby", "hall", "nowhere"];

    /// Few conversations, senders, keys and contents, so that they meet.
    fn messages() -> impl Strategy<Value = Vec<NewMessage>> {
        let message = (0..3_usize, 0..2_u8, 0..6_u8, prop::bool::weighted(0.2), 0..20_i64).prop_map(
            |(conversation, sender, key, other, reply_to_seq)| NewMessage {
                conversation: ConversationId::new(CONVERSATIONS[conversation].to_owned()),
                sender: UserId::new(format!("sender-{sender}")),
                client_message_id: format!("key-{key}"),
                fingerprint: [u8::from(other); 32],
                body: Body::Text(String::new()),
                reply_to_seq: if reply_to_seq > 12 { 0 } else { reply_to_seq },
                attributes: BTreeMap::new(),
            },
        );
        proptest::collection::vec(message, 0..40)
    }

    /// Two of the conversations, one with messages.
    fn start() -> Found {
        let row = |no, last_seq| ConversationRow { no: ConversationNo::new(no), last_seq, last_time: None };
        let id = |place: usize| ConversationId::new(CONVERSATIONS[place].to_owned());
        Found { conversations: [(id(0), row(7, 0)), (id(1), row(8, 5))].into(), ..Found::default() }
    }

    /// What there is after a batch was committed.
    fn commit(mut found: Found, messages: &[NewMessage], verdicts: &[Verdict]) -> Found {
        for (message, verdict) in messages.iter().zip(verdicts) {
            if let Verdict::New(numbered) = verdict {
                found.conversations.get_mut(&message.conversation).unwrap().last_seq = numbered.seq;
                let key = Key::of(numbered.conversation, message);
                found.messages.insert(key, (message.fingerprint.to_vec(), numbered.seq));
            }
        }
        found
    }

    /// The key of a message, if there is its conversation.
    fn key(found: &Found, message: &NewMessage) -> Option<Key> {
        found.conversations.get(&message.conversation).map(|row| Key::of(row.no, message))
    }

    proptest! {
        #[test]
        fn new_numbers_follow_each_other_in_the_order_of_the_request(messages in messages()) {
            let mut found = start();
            let verdicts = number(&messages, &found);
            prop_assert_eq!(verdicts.len(), messages.len());
            for (message, verdict) in messages.iter().zip(verdicts) {
                match verdict {
                    Verdict::New(numbered) => {
                        let row = found.conversations.get_mut(&message.conversation).unwrap();
                        row.last_seq += 1;
                        prop_assert_eq!((numbered.conversation, numbered.seq), (row.no, row.last_seq));
                        prop_assert!(message.reply_to_seq < numbered.seq);
                    }
                    Verdict::NoReplyTarget { last_seq } => {
                        prop_assert_eq!(last_seq, found.conversations[&message.conversation].last_seq);
                        prop_assert!(message.reply_to_seq > last_seq);
                    }
                    Verdict::NoConversation => prop_assert!(!found.conversations.contains_key(&message.conversation)),
                    _ => prop_assert!(found.conversations.contains_key(&message.conversation)),
                }
            }
        }

        #[test]
        fn one_key_is_one_message(first in messages(), second in messages()) {
            let found = commit(start(), &first, &number(&first, &start()));
            let mut taken = found.messages.clone();
            let verdicts = number(&second, &found);
            for (message, verdict) in second.iter().zip(&verdicts) {
                let Some(key) = key(&found, message) else { continue };
                let earlier = taken.get(&key).map(|(fingerprint, seq)| (fingerprint[..] == message.fingerprint, *seq));
                match verdict {
                    Verdict::New(numbered) => {
                        prop_assert_eq!(earlier, None);
                        taken.insert(key, (message.fingerprint.to_vec(), numbered.seq));
                    }
                    Verdict::Repeat { seq } => prop_assert_eq!(earlier, Some((true, *seq))),
                    Verdict::SameAs { place } => {
                        let Verdict::New(numbered) = verdicts[*place] else { panic!("the same as what is not new") };
                        prop_assert_eq!(earlier, Some((true, numbered.seq)));
                    }
                    Verdict::KeyReused { seq } => prop_assert_eq!(earlier, Some((false, *seq))),
                    Verdict::NoReplyTarget { .. } => prop_assert_eq!(earlier, None),
                    Verdict::NoConversation => prop_assert!(false, "there is one"),
                }
            }
        }

        #[test]
        fn a_batch_that_is_repeated_hears_the_same_numbers(messages in messages()) {
            let first = number(&messages, &start());
            let second = number(&messages, &commit(start(), &messages, &first));
            for (verdict, again) in first.iter().zip(&second) {
                match verdict {
                    Verdict::New(numbered) => prop_assert_eq!(again, &Verdict::Repeat { seq: numbered.seq }),
                    Verdict::SameAs { place } => prop_assert_eq!(again, &second[*place]),
                    Verdict::KeyReused { .. } | Verdict::NoConversation => prop_assert_eq!(again, verdict),
                    // Its target may be there by now.
                    Verdict::NoReplyTarget { .. } => {}
                    Verdict::Repeat { .. } => prop_assert!(false, "of what?"),
                }
            }
        }
    }
}
