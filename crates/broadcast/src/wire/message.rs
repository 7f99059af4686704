//! The bytes of a message, encoded once by the instance that published it.
//!
//! A *body* is a `Message` without epoch, offset and publish time, which only Redis knows. The fields of a protobuf may
//! stand in any order, so what is missing is put behind the body, and the whole serves every subscriber. So does what
//! caused the message, which is no part of what the fingerprint is of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::broadcast as pb;

use crate::model::{Epoch, NewMessage};

/// What stands before the body of a message that is told to those who listen: epoch as text (16), offset (8) and time
/// (8, in us), big endian.
const HEADER: usize = 32;

/// The body of a message, without what caused it.
pub fn body(message: &NewMessage) -> Vec<u8> {
    let NewMessage { channel, data, content_type, attributes, request_id: _, trace_parent: _ } = message.clone();
    pb::Message { channel: channel.to_string(), data, content_type, attributes, ..Default::default() }.encode_to_vec()
}

/// A hash of what a publisher asked for: equal for a repeat, different for anything else.
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// A body with what caused the message.
pub fn caused(mut body: Vec<u8>, trace_parent: &str) -> Vec<u8> {
    let cause = pb::Message { trace_parent: trace_parent.to_owned(), ..Default::default() };
    body.extend_from_slice(&cause.encode_to_vec());
    body
}

/// What caused a whole encoded message, if that is known.
pub fn trace_parent(message: &Bytes) -> Option<String> {
    let message = pb::Message::decode(message.clone()).ok()?; // its data stay where they are
    Some(message.trace_parent).filter(|parent| !parent.is_empty())
}

/// The whole encoded message of a body.
pub fn complete(mut body: Vec<u8>, epoch: Epoch, offset: i64, time: SystemTime) -> Bytes {
    let place = place(epoch, offset, time);
    body.reserve_exact(place.len());
    body.extend_from_slice(&place);
    Bytes::from(body)
}

/// A message as those who listen are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its numbering.
    pub epoch: Epoch,
    /// Its number.
    pub offset: i64,
    /// The whole encoded message.
    pub message: Bytes,
}

impl Told {
    /// Reads what the script that publishes tells; `None` if it is something else.
    pub fn parse(mut told: Vec<u8>) -> Option<Self> {
        let (header, _) = told.split_at_checked(HEADER)?;
        let number = |at: usize| Some(i64::from_be_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let (epoch, offset, time) = (Epoch::parse(&header[..Epoch::TEXT])?, number(16)?, time(number(24)?)?);
        let place = place(epoch, offset, time);
        told.reserve_exact(place.len());
        told.extend_from_slice(&place);
        Some(Self { epoch, offset, message: Bytes::from(told).slice(HEADER..) })
    }
}

/// A moment that Redis told in microseconds since 1970.
pub fn time(micros: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_micros(u64::try_from(micros).ok()?))
}

/// The fields that a body lacks.
fn place(epoch: Epoch, offset: i64, time: SystemTime) -> Vec<u8> {
    let place = pb::Message { epoch: epoch.to_string(), offset, publish_time: Some(time.into()), ..Default::default() };
    place.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::model::ChannelName;

    fn told(epoch: Epoch, offset: i64, micros: i64, body: &[u8]) -> Vec<u8> {
        [epoch.to_string().as_bytes(), &offset.to_be_bytes(), &micros.to_be_bytes(), body].concat()
    }

    proptest! {
        #[test]
        fn a_body_and_its_place_are_the_message_and_nothing_else(
            data in vec(any::<u8>(), 0..300),
            content_type in "[!-~]{0,20}",
            attributes in btree_map("[a-z]{1,9}", ".{0,9}", 0..5),
            offset in 1..1_i64 << 53,
            micros in 0..1_i64 << 53,
            trace_parent in prop_oneof![Just(""), Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        ) {
            let (channel, epoch) = (ChannelName::new("orders/eu"), Epoch::random());
            let new = NewMessage { channel, data: data.into(), content_type, attributes, request_id: None, trace_parent: trace_parent.to_owned() };
            let body = || caused(body(&new), trace_parent);
            let expected = pb::Message {
                channel: "orders/eu".to_owned(),
                epoch: epoch.to_string(),
                offset,
                publish_time: Some(time(micros).unwrap().into()),
                data: new.data.clone(),
                content_type: new.content_type.clone(),
                attributes: new.attributes.clone(),
                trace_parent: trace_parent.to_owned(),
            };

            let heard = Told::parse(told(epoch, offset, micros, &body())).unwrap();
            let read = complete(body(), epoch, offset, time(micros).unwrap());

            prop_assert_eq!((heard.epoch, heard.offset), (epoch, offset));
            prop_assert_eq!(&heard.message, &read, "heard or read, the same bytes");
            // As long as the plain encoding, so that there is nothing in it that the decoder passed over.
            prop_assert_eq!(read.len(), expected.encoded_len());
            prop_assert_eq!(super::trace_parent(&read).unwrap_or_default(), trace_parent);
            prop_assert_eq!(pb::Message::decode(read).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_the_ear_panic(bytes in vec(any::<u8>(), 0..64), digits in "[0-9a-f]{16}") {
            let _ = Told::parse(bytes.clone());
            let _ = Told::parse([digits.as_bytes(), &bytes].concat());
        }
    }
}
