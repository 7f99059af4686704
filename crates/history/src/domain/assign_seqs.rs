//! Assignment of seqs to a batch of appends: pure rules over the state that was read under the
//! locks.

use std::collections::HashMap;

use crate::model::{AppendRequest, ConversationNo};
use crate::store::{AppendDecision, AssignedSeq, LockedState, MessageKey, StoredMessage};

/// A new message of the batch, before the one at hand.
#[derive(Clone, Copy)]
struct EarlierItem {
    /// Index in the batch.
    index: usize,
    /// Seq that the message got.
    seq: i64,
}

/// Assigns the next seqs to the new messages, in the order given.
///
/// Applies these rules to each message, in this order:
/// 1. The conversation must exist.
/// 2. A key that is taken, by a message in Postgres or by an earlier item of the batch, makes the
///    message a duplicate if its content is the same, and refused if not.
/// 3. A reply must refer to a message that has a seq.
///
/// Duplicates are recognised before rule 3, so that a late retry always gets the response of the
/// first attempt.
pub(super) fn assign_seqs(messages: &[AppendRequest], state: &LockedState) -> Vec<AppendDecision> {
    let mut last_seqs: HashMap<ConversationNo, i64> =
        state.conversations.values().map(|row| (row.no, row.last_seq)).collect();
    let mut earlier: HashMap<MessageKey, EarlierItem> = HashMap::new();
    let mut decisions = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let Some(conversation) = state.conversations.get(&message.conversation) else {
            decisions.push(AppendDecision::NoConversation);
            continue;
        };
        let key = MessageKey::of(conversation.no, message);
        if let Some(StoredMessage { fingerprint, seq }) = state.messages.get(&key) {
            let same = fingerprint[..] == message.fingerprint;
            decisions.push(if same {
                AppendDecision::AlreadyStored { seq: *seq }
            } else {
                AppendDecision::KeyReused { seq: *seq }
            });
            continue;
        }
        if let Some(&EarlierItem { index, seq }) = earlier.get(&key) {
            let same = messages[index].fingerprint == message.fingerprint;
            decisions.push(if same {
                AppendDecision::DuplicateOf { index }
            } else {
                AppendDecision::KeyReused { seq }
            });
            continue;
        }
        let last_seq = last_seqs.entry(conversation.no).or_insert(conversation.last_seq);
        if message.reply_to_seq > *last_seq {
            decisions.push(AppendDecision::NoReplyTarget { last_seq: *last_seq });
            continue;
        }
        *last_seq += 1;
        earlier.insert(key, EarlierItem { index, seq: *last_seq });
        decisions.push(AppendDecision::New(AssignedSeq { conversation: conversation.no, seq: *last_seq }));
    }
    decisions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Body, ConversationId, UserId};
    use crate::store::ConversationRow;

    const CONVERSATIONS: [&str; 3] = ["lobby", "hall", "nowhere"];

    /// Batches with few conversations, senders, keys and contents, so that they collide.
    fn messages() -> impl Strategy<Value = Vec<AppendRequest>> {
        let message = (0..3_usize, 0..2_u8, 0..6_u8, prop::bool::weighted(0.2), 0..20_i64).prop_map(
            |(conversation, sender, key, other, reply_to_seq)| AppendRequest {
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

    /// Initial state: two of the three conversations exist, one of them with messages.
    fn initial() -> LockedState {
        let row = |no, last_seq| ConversationRow { no: ConversationNo::new(no), last_seq, last_time: None };
        let id = |index: usize| ConversationId::new(CONVERSATIONS[index].to_owned());
        LockedState { conversations: [(id(0), row(7, 0)), (id(1), row(8, 5))].into(), ..LockedState::default() }
    }

    /// Returns the state after a batch was committed.
    fn commit(mut state: LockedState, messages: &[AppendRequest], decisions: &[AppendDecision]) -> LockedState {
        for (message, decision) in messages.iter().zip(decisions) {
            if let AppendDecision::New(assigned) = decision {
                state.conversations.get_mut(&message.conversation).unwrap().last_seq = assigned.seq;
                let key = MessageKey::of(assigned.conversation, message);
                let stored = StoredMessage { fingerprint: message.fingerprint.to_vec(), seq: assigned.seq };
                state.messages.insert(key, stored);
            }
        }
        state
    }

    /// Returns the key of a message; `None` if its conversation does not exist.
    fn key(state: &LockedState, message: &AppendRequest) -> Option<MessageKey> {
        state.conversations.get(&message.conversation).map(|row| MessageKey::of(row.no, message))
    }

    proptest! {
        #[test]
        fn new_seqs_are_consecutive_in_the_order_of_the_request(messages in messages()) {
            let mut state = initial();
            let decisions = assign_seqs(&messages, &state);
            prop_assert_eq!(decisions.len(), messages.len());
            for (message, decision) in messages.iter().zip(decisions) {
                match decision {
                    AppendDecision::New(assigned) => {
                        let row = state.conversations.get_mut(&message.conversation).unwrap();
                        row.last_seq += 1;
                        prop_assert_eq!((assigned.conversation, assigned.seq), (row.no, row.last_seq));
                        prop_assert!(message.reply_to_seq < assigned.seq);
                    }
                    AppendDecision::NoReplyTarget { last_seq } => {
                        prop_assert_eq!(last_seq, state.conversations[&message.conversation].last_seq);
                        prop_assert!(message.reply_to_seq > last_seq);
                    }
                    AppendDecision::NoConversation => {
                        prop_assert!(!state.conversations.contains_key(&message.conversation));
                    }
                    _ => prop_assert!(state.conversations.contains_key(&message.conversation)),
                }
            }
        }

        #[test]
        fn one_key_is_one_message(first in messages(), second in messages()) {
            let state = commit(initial(), &first, &assign_seqs(&first, &initial()));
            let mut taken = state.messages.clone();
            let decisions = assign_seqs(&second, &state);
            for (message, decision) in second.iter().zip(&decisions) {
                let Some(key) = key(&state, message) else { continue };
                let earlier =
                    taken.get(&key).map(|stored| (stored.fingerprint[..] == message.fingerprint, stored.seq));
                match decision {
                    AppendDecision::New(assigned) => {
                        prop_assert_eq!(earlier, None);
                        let stored = StoredMessage { fingerprint: message.fingerprint.to_vec(), seq: assigned.seq };
                        taken.insert(key, stored);
                    }
                    AppendDecision::AlreadyStored { seq } => prop_assert_eq!(earlier, Some((true, *seq))),
                    AppendDecision::DuplicateOf { index } => {
                        let AppendDecision::New(assigned) = decisions[*index] else {
                            panic!("a duplicate of an item that is not new")
                        };
                        prop_assert_eq!(earlier, Some((true, assigned.seq)));
                    }
                    AppendDecision::KeyReused { seq } => prop_assert_eq!(earlier, Some((false, *seq))),
                    AppendDecision::NoReplyTarget { .. } => prop_assert_eq!(earlier, None),
                    AppendDecision::NoConversation => prop_assert!(false, "the conversation exists"),
                }
            }
        }

        #[test]
        fn a_retried_batch_gets_the_same_seqs(messages in messages()) {
            let first = assign_seqs(&messages, &initial());
            let second = assign_seqs(&messages, &commit(initial(), &messages, &first));
            for (decision, retry) in first.iter().zip(&second) {
                match decision {
                    AppendDecision::New(assigned) => {
                        prop_assert_eq!(retry, &AppendDecision::AlreadyStored { seq: assigned.seq });
                    }
                    AppendDecision::DuplicateOf { index } => prop_assert_eq!(retry, &second[*index]),
                    AppendDecision::KeyReused { .. } | AppendDecision::NoConversation => {
                        prop_assert_eq!(retry, decision);
                    }
                    // The first commit may have created the reply target.
                    AppendDecision::NoReplyTarget { .. } => {}
                    AppendDecision::AlreadyStored { .. } => {
                        prop_assert!(false, "no message was stored before the batch");
                    }
                }
            }
        }
    }
}
