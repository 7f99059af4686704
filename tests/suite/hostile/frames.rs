//! HTTP/2 as bytes (RFC 9113), also such as no client of good will would send.

use prost::Message as _;
use tidings_proto::user::GetUserRequest;

/// What every connection begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A method that answers without a store.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// A method that asks Redis, and Postgres where Redis has nothing.
pub(crate) const GET_USER: &str = "/tidings.user.v1.UserService/GetUser";

/// Types of frames (section 6).
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

/// Flags of frames; two share a bit.
pub(crate) mod flag {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
}

/// Names of settings (6.5.2).
pub(crate) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}

/// Why a stream or a connection ended (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Any frame, whether or not it makes sense.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The settings of a client.
pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, flag::NONE, 0, &payload)
}

/// The end of a stream that its client does not want any more.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, &code::CANCEL.to_be_bytes())
}

/// A question whose answer tells that everything before it has been read.
pub(crate) fn ping() -> Vec<u8> {
    frame(kind::PING, flag::NONE, 0, b"are you?")
}

/// A header block: each field as a literal that is neither compressed nor remembered (RFC 7541, 6.2.2).
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

/// A number behind a bit that says "not Huffman" (RFC 7541, 5.1).
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

/// The fields with which every call begins.
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

/// The beginning of a call: its headers, without a message.
pub(crate) fn open(stream: u32, method: &str) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block(&fields(method)))
}

/// A message as gRPC frames it.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend(bytes);
    message
}

/// The only message of a call, and its end.
pub(crate) fn last(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, &message(bytes))
}

/// A whole call.
pub(crate) fn call(stream: u32, method: &str, bytes: &[u8]) -> Vec<u8> {
    [open(stream, method), last(stream, bytes)].concat()
}

/// The numbers that a client gives to its streams: 1, 3, 5 and so on.
pub(crate) fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// A request for a user.
pub(crate) fn get_user(id: &str) -> Vec<u8> {
    GetUserRequest { id: id.to_owned(), ..GetUserRequest::default() }.encode_to_vec()
}

#[test]
fn lengths_are_coded_as_the_rfc_shows() {
    let coded = |number| {
        let mut bytes = Vec::new();
        length(&mut bytes, number);
        bytes
    };
    assert_eq!(coded(10), [10]);
    assert_eq!(coded(127), [127, 0]);
    // RFC 7541, C.1.2, with a prefix of 7 bits instead of 5: 1337 = 127 + 1210, 1210 = 58 + 9 * 128.
    assert_eq!(coded(1337), [127, 0b1011_1010, 9]);
}
