//! The encoding of a message, made once by the instance that publishes it.
//!
//! A *body* is an encoded `Message` without epoch, offset and publish time, which Redis assigns.
//! Protobuf allows fields in any order, so these fields are appended to the body, and the result is
//! sent to every subscriber. The trace parent is appended, too: the fingerprint does not cover it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::broadcast as pb;

use crate::model::{ChannelEpoch, UnpublishedMessage};

/// Bytes before the body in a notification: epoch as text (16), offset (8) and publish time in
/// microseconds (8), both big-endian.
const HEADER: usize = 32;

/// Encodes the body of a message, without the trace parent.
pub fn encode_body(message: &UnpublishedMessage) -> Vec<u8> {
    let UnpublishedMessage { channel, data, content_type, attributes, request_id: _, trace_parent: _ } =
        message.clone();
    pb::Message { channel: channel.to_string(), data, content_type, attributes, ..Default::default() }.encode_to_vec()
}

/// Hashes the content of a message, to recognise a retry with the same request id.
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Appends the trace parent to a body.
pub fn with_trace_parent(mut body: Vec<u8>, trace_parent: &str) -> Vec<u8> {
    let fields = pb::Message { trace_parent: trace_parent.to_owned(), ..Default::default() };
    body.extend_from_slice(&fields.encode_to_vec());
    body
}

/// Decodes the trace parent of a whole encoded message; `None` if it has none.
pub fn trace_parent(message: &Bytes) -> Option<String> {
    let message = pb::Message::decode(message.clone()).ok()?; // shares the bytes of `data`
    Some(message.trace_parent).filter(|parent| !parent.is_empty())
}

/// Appends epoch, offset and publish time to a body, which makes it a whole encoded message.
pub fn complete_message(mut body: Vec<u8>, epoch: ChannelEpoch, offset: i64, time: SystemTime) -> Bytes {
    let fields = position_fields(epoch, offset, time);
    body.reserve_exact(fields.len());
    body.extend_from_slice(&fields);
    Bytes::from(body)
}

/// A message as Redis sends it to subscribed instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageNotification {
    /// Epoch that `offset` belongs to.
    pub epoch: ChannelEpoch,
    /// Offset of the message, 1 or more.
    pub offset: i64,
    /// Whole encoded message.
    pub message: Bytes,
}

impl MessageNotification {
    /// Parses the payload sent by the `publish` script; returns `None` for any other.
    pub fn parse(mut payload: Vec<u8>) -> Option<Self> {
        let (header, _) = payload.split_at_checked(HEADER)?;
        let number = |at: usize| Some(i64::from_be_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let (epoch, offset, time) =
            (ChannelEpoch::parse(&header[..ChannelEpoch::TEXT_LEN])?, number(16)?, time_from_micros(number(24)?)?);
        let fields = position_fields(epoch, offset, time);
        payload.reserve_exact(fields.len());
        payload.extend_from_slice(&fields);
        Some(Self { epoch, offset, message: Bytes::from(payload).slice(HEADER..) })
    }
}

/// Converts microseconds since 1970, the clock of Redis, to a time.
pub fn time_from_micros(micros: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_micros(u64::try_from(micros).ok()?))
}

/// Encodes the fields that a body lacks.
fn position_fields(epoch: ChannelEpoch, offset: i64, time: SystemTime) -> Vec<u8> {
    let fields =
        pb::Message { epoch: epoch.to_string(), offset, publish_time: Some(time.into()), ..Default::default() };
    fields.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::model::ChannelName;

    fn payload(epoch: ChannelEpoch, offset: i64, micros: i64, body: &[u8]) -> Vec<u8> {
        [epoch.to_string().as_bytes(), &offset.to_be_bytes(), &micros.to_be_bytes(), body].concat()
    }

    proptest! {
        #[test]
        fn a_body_and_its_position_make_the_whole_message(
            data in vec(any::<u8>(), 0..300),
            content_type in "[!-~]{0,20}",
            attributes in btree_map("[a-z]{1,9}", ".{0,9}", 0..5),
            offset in 1..1_i64 << 53,
            micros in 0..1_i64 << 53,
            trace_parent in prop_oneof![Just(""), Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        ) {
            let (channel, epoch) = (ChannelName::new("orders/eu"), ChannelEpoch::random());
            let new = UnpublishedMessage {
                channel,
                data: data.into(),
                content_type,
                attributes,
                request_id: None,
                trace_parent: trace_parent.to_owned(),
            };
            let body = || with_trace_parent(encode_body(&new), trace_parent);
            let expected = pb::Message {
                channel: "orders/eu".to_owned(),
                epoch: epoch.to_string(),
                offset,
                publish_time: Some(time_from_micros(micros).unwrap().into()),
                data: new.data.clone(),
                content_type: new.content_type.clone(),
                attributes: new.attributes.clone(),
                trace_parent: trace_parent.to_owned(),
            };

            let notification = MessageNotification::parse(payload(epoch, offset, micros, &body())).unwrap();
            let read = complete_message(body(), epoch, offset, time_from_micros(micros).unwrap());

            prop_assert_eq!((notification.epoch, notification.offset), (epoch, offset));
            prop_assert_eq!(&notification.message, &read, "a notification and a page have the same bytes");
            // The length equals the plain encoding's, so the decoder skipped no unknown bytes.
            prop_assert_eq!(read.len(), expected.encoded_len());
            prop_assert_eq!(super::trace_parent(&read).unwrap_or_default(), trace_parent);
            prop_assert_eq!(pb::Message::decode(read).unwrap(), expected);
        }

        #[test]
        fn no_payload_makes_the_parser_panic(bytes in vec(any::<u8>(), 0..64), digits in "[0-9a-f]{16}") {
            let _ = MessageNotification::parse(bytes.clone());
            let _ = MessageNotification::parse([digits.as_bytes(), &bytes].concat());
        }
    }
}
