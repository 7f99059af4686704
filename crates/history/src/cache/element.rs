//! The encoding of one message in a tail: a header of seq, edit version and running total of bytes,
//! then the message as protobuf.
//!
//! The scripts write and read the header. This module only checks its seq against the message.

use prost::Message as _;
use tidings_proto::history as pb;

use crate::model::{ConversationId, Message};
use crate::wire;

/// Size of the header in bytes: seq (8), edit version (4), and total size of all messages from the
/// creation of the tail up to this one (8), each big-endian.
const HEADER: usize = 20;

/// Encodes the message without its header.
pub(super) fn body(message: &Message) -> Vec<u8> {
    wire::message(message.clone()).encode_to_vec()
}

/// Decodes an element; `None` if it is not a message of this conversation in our format.
pub(super) fn decode(id: &ConversationId, element: &[u8]) -> Option<Message> {
    let (header, body) = element.split_at_checked(HEADER)?;
    let seq = i64::from_be_bytes(header[..8].try_into().ok()?);
    let message = wire::cached_message(pb::Message::decode(body).ok()?)?;
    (message.seq == seq && message.conversation == *id).then_some(message)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{Body, MessageState, UserId};

    proptest! {
        #[test]
        fn a_stored_message_decodes_to_the_same_message(seq in 1..1_i64 << 53, text in ".*") {
            let message = Message {
                conversation: ConversationId::new("lobby".to_owned()),
                seq,
                id: Uuid::now_v7(),
                sender: UserId::new("ada".to_owned()),
                client_message_id: "1".to_owned(),
                body: Body::Text(text),
                reply_to_seq: 0,
                attributes: [("kind".to_owned(), "text".to_owned())].into(),
                state: MessageState::Active,
                edit_version: 1,
                change_seq: 0,
                create_time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            };
            let element = [&seq.to_be_bytes()[..], &1_u32.to_be_bytes(), &0_u64.to_be_bytes(), &body(&message)].concat();
            prop_assert_eq!(decode(&message.conversation, &element), Some(message));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&ConversationId::new("lobby".to_owned()), &bytes);
        }
    }
}
