//! Batches of messages, each published in one call of broadcast.

use std::mem;

use crate::model::Message;

/// Maximum number of messages in one call of broadcast.
const BATCH_MESSAGES: usize = 100;
/// Maximum size of the messages in one call, in bytes, unless a single message is larger. A slow
/// link then delays others by little, and a failure concerns few conversations.
const BATCH_BYTES: usize = 256 * 1024;

/// Messages of one row that are published in the same call.
#[derive(Debug)]
pub(super) struct RowChunk {
    /// Index of the row among the rows of the step.
    pub(super) row: usize,
    pub(super) messages: Vec<Message>,
    /// True if the row has no further messages.
    pub(super) last: bool,
}

/// Groups the messages of rows into batches of at most [`BATCH_MESSAGES`] and [`BATCH_BYTES`]. A
/// row that does not fit a batch is split into consecutive chunks.
pub(super) fn batches(rows: Vec<usize>, messages: Vec<Vec<Message>>) -> Vec<Vec<RowChunk>> {
    let mut batches = Vec::new();
    let (mut batch, mut count, mut bytes) = (Vec::new(), 0, 0);
    for (row, messages) in rows.into_iter().zip(messages) {
        let mut chunk = RowChunk { row, messages: Vec::new(), last: false };
        for message in messages {
            let size = message.body.size();
            if count == BATCH_MESSAGES || count > 0 && bytes + size > BATCH_BYTES {
                if !chunk.messages.is_empty() {
                    batch.push(mem::replace(&mut chunk, RowChunk { row, messages: Vec::new(), last: false }));
                }
                batches.push(mem::take(&mut batch));
                (count, bytes) = (0, 0);
            }
            (count, bytes) = (count + 1, bytes + size);
            chunk.messages.push(message);
        }
        batch.push(RowChunk { last: true, ..chunk });
    }
    batches.push(batch);
    batches
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use uuid::Uuid;

    use super::*;
    use crate::model::{Body, ConversationId, MessageState, UserId};

    fn message(seq: usize, size: usize) -> Message {
        Message {
            conversation: ConversationId::new("lobby".to_owned()),
            seq: seq.try_into().unwrap(),
            id: Uuid::nil(),
            sender: UserId::new("ada".to_owned()),
            client_message_id: String::new(),
            body: Body::Text("x".repeat(size)),
            reply_to_seq: 0,
            attributes: BTreeMap::new(),
            state: MessageState::Active,
            edit_version: 1,
            change_seq: 0,
            create_time: UNIX_EPOCH,
        }
    }

    /// Returns, for each batch, its rows with the numbers of messages, and `true` at the end of a
    /// row.
    fn shape(sizes: &[&[usize]]) -> Vec<Vec<(usize, usize, bool)>> {
        let messages = sizes.iter().map(|row| row.iter().map(|size| message(1, *size)).collect()).collect();
        let shape = |batch: Vec<RowChunk>| {
            batch.iter().map(|chunk| (chunk.row, chunk.messages.len(), chunk.last)).collect::<Vec<_>>()
        };
        batches((0..sizes.len()).collect(), messages).into_iter().map(shape).collect()
    }

    #[test]
    fn a_batch_ends_at_a_hundred_messages() {
        let shape = shape(&[&[1; 99], &[1; 102], &[], &[1]]);

        let expected =
            [vec![(0, 99, true), (1, 1, false)], vec![(1, 100, false)], vec![(1, 1, true), (2, 0, true), (3, 1, true)]];
        assert_eq!(shape, expected);
    }

    #[test]
    fn a_batch_ends_at_256_kib_unless_one_message_is_larger() {
        let half = BATCH_BYTES / 2;

        let shape = shape(&[&[half, half, 1], &[BATCH_BYTES + 1], &[half]]);

        let expected = [vec![(0, 2, false)], vec![(0, 1, true)], vec![(1, 1, true)], vec![(2, 1, true)]];
        assert_eq!(shape, expected);
    }
}
