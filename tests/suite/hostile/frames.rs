//! Encodes HTTP/2 frames (RFC 9113), valid and invalid ones.

use prost::Message as _;
use tidings_proto::user::GetUserRequest;

/// Connection preface (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Method that needs neither Redis nor Postgres.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Method that reads Redis, and Postgres on a miss.
pub(crate) const GET_USER: &str = "/tidings.user.v1.UserService/GetUser";

/// Frame types (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Frame flags; ACK and END_STREAM share a bit.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
}

/// Identifiers of settings (section 6.5.2).
pub(crate) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}

/// Error codes (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Encodes a frame; any combination of fields is possible.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Encodes a SETTINGS frame.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, flag::NONE, 0, &payload)
}

/// Encodes a RST_STREAM with code CANCEL.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, &code::CANCEL.to_be_bytes())
}

/// Encodes a PING, whose ACK shows that the server has read all frames before it.
pub(crate) fn ping() -> Vec<u8> {
    frame(kind::PING, flag::NONE, 0, b"are you?")
}

/// Encodes a header block, each field as a literal without Huffman coding and indexing (RFC 7541,
/// 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Appends a length with a 7-bit prefix, after the Huffman bit 0 (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// Returns the header fields of a gRPC call.
pub(crate) fn fields(method: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "tidings"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// Encodes the headers of a call.
pub(crate) fn open(stream: u32, method: &str) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block(&fields(method)))
}

/// Prefixes a message with gRPC's compression flag and length.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend(bytes);
    message
}

/// Encodes the only message of a call, with END_STREAM.
pub(crate) fn last(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, &message(bytes))
}

/// Encodes a complete call: headers and message.
pub(crate) fn call(stream: u32, method: &str, bytes: &[u8]) -> Vec<u8> {
    [open(stream, method), last(stream, bytes)].concat()
}

/// Iterates over the stream ids of a client: 1, 3, 5 and so on.
pub(crate) fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// Encodes a `GetUserRequest`.
pub(crate) fn get_user(id: &str) -> Vec<u8> {
    GetUserRequest { id: id.to_owned(), ..GetUserRequest::default() }.encode_to_vec()
}

#[test]
fn lengths_are_encoded_as_in_the_rfc() {
    let coded = |number| {
        let mut bytes = Vec::new();
        length(&mut bytes, number);
        bytes
    };
    assert_eq!(coded(10), [10]);
    assert_eq!(coded(127), [127, 0]);
    // RFC 7541, C.1.2, with a prefix of 7 bits instead of 5: 1337 = 127 + 1210, 1210 = 58 + 9 *
    // 128.
    assert_eq!(coded(1337), [127, 0b1011_1010, 9]);
}
