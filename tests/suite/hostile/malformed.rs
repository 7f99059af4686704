//! Malformed input: frames that violate the protocol, truncated frames, random bytes.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::background_load::BACKGROUND_USER;
use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{
    GET_USER, HEALTH, PREFACE, block, call, code, fields, flag, frame, get_user, kind, last, message, open, ping,
    reset, setting, settings,
};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

/// Stream of a valid call on the same connection.
const VALID_STREAM: u32 = 101;
/// Longest wait for a reaction to the violation once the valid call is answered.
const REACTION_WAIT: Duration = Duration::from_millis(300);

/// Reaction of the server to a protocol violation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ViolationOutcome {
    /// The connection ends after a GOAWAY with any error code: h2 does not always use the RFC's.
    Ends,
    /// The stream is reset with this code; the connection stays open.
    Resets(u32),
    /// The call gets a response with END_STREAM; the connection stays open.
    Answers,
    /// The frames have no effect; the connection stays open.
    Ignored,
}

use ViolationOutcome::{Answers, Ends, Ignored, Resets};

/// Name of a violation, its frames, and the expected reaction.
type ProtocolViolation = (&'static str, Vec<u8>, ViolationOutcome);

/// Returns violations of the rules of connections.
fn connection_violations() -> Vec<ProtocolViolation> {
    let (none, headers) = (flag::NONE, block(&fields(HEALTH)));
    let half_open = |last: Vec<u8>| [frame(kind::HEADERS, none, 1, &headers), last].concat();
    let window = |stream, by: u32| frame(kind::WINDOW_UPDATE, none, stream, &by.to_be_bytes());
    vec![
        ("DATA on stream 0", last(0, &[]), Ends),
        ("HEADERS on stream 0", open(0, HEALTH), Ends),
        ("HEADERS on a stream id of the server", open(2, HEALTH), Ends),
        ("DATA on an idle stream", last(1, &[]), Ends),
        ("RST_STREAM on stream 0", reset(0), Ends),
        ("RST_STREAM of an idle stream", reset(1), Ends),
        ("RST_STREAM of 3 bytes", frame(kind::RST_STREAM, none, 1, b"abc"), Ends),
        ("PING of 7 bytes", frame(kind::PING, none, 0, b"7 bytes"), Ends),
        ("PING on a stream", frame(kind::PING, none, 1, b"8 bytes!"), Ends),
        ("SETTINGS of 5 bytes", frame(kind::SETTINGS, none, 0, b"bytes"), Ends),
        ("SETTINGS on a stream", frame(kind::SETTINGS, none, 1, &[]), Ends),
        ("SETTINGS ACK with content", frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), Ends),
        ("a window of 2^31", settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]), Ends),
        ("a frame size of 1", settings(&[(setting::MAX_FRAME_SIZE, 1)]), Ends),
        ("a push flag of 2", settings(&[(setting::ENABLE_PUSH, 2)]), Ends),
        ("WINDOW_UPDATE by 0", window(0, 0), Ends),
        ("WINDOW_UPDATE past 2^31", window(0, (1 << 31) - 1), Ends),
        ("WINDOW_UPDATE of 3 bytes", frame(kind::WINDOW_UPDATE, none, 0, b"abc"), Ends),
        ("PUSH_PROMISE by a client", frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), Ends),
        ("CONTINUATION without HEADERS", frame(kind::CONTINUATION, 4, 1, &headers), Ends),
        ("PING inside a header block", half_open(ping()), Ends),
        ("HEADERS inside a header block", half_open(open(3, HEALTH)), Ends),
        ("a frame larger than allowed", frame(kind::DATA, none, 1, &[0; 16_385]), Ends),
        ("GOAWAY on a stream", frame(kind::GOAWAY, none, 1, &[0; 8]), Ends),
        ("HEADERS with only padding", frame(kind::HEADERS, 0xd, 1, &[9, 0]), Ends),
        ("a header index of 0", frame(kind::HEADERS, 5, 1, &[0x80]), Ends),
        ("a header index of 100", frame(kind::HEADERS, 5, 1, &[0xe4]), Ends),
        ("a truncated header", frame(kind::HEADERS, 5, 1, &[0, 100, b'x']), Ends),
        ("a header length without end", frame(kind::HEADERS, 5, 1, &[0xff; 100]), Ends),
        ("a header table of 2^30", frame(kind::HEADERS, 5, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 3]), Ends),
        ("a frame of an unknown type", frame(0xbb, 0xff, 7, b"what?"), Ignored),
        ("an unknown setting", settings(&[(0xbbbb, 7)]), Ignored),
        (
            "PRIORITY that depends on itself",
            frame(kind::PRIORITY, none, 1, &[0, 0, 0, 1, 0]),
            Resets(code::PROTOCOL_ERROR),
        ),
    ]
}

/// Returns violations of the rules of calls, each on stream 1.
fn call_violations() -> Vec<ProtocolViolation> {
    let with = |name, value| [&fields(HEALTH)[..], &[(name, value)]].concat();
    let without = |name| fields(HEALTH).into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
    let headers = |fields: &[(&str, &str)]| frame(kind::HEADERS, flag::END_HEADERS, 1, &block(fields));
    let whole = |fields: &[(&str, &str)]| [headers(fields), last(1, &[])].concat();
    let body = |bytes: &[u8]| [open(1, HEALTH), frame(kind::DATA, flag::END_STREAM, 1, bytes)].concat();
    let padded = [open(1, HEALTH), frame(kind::DATA, flag::PADDED, 1, &[200, 0, 0])].concat();
    let late = block(&[("x-late", "1"), (":path", HEALTH)]);
    let huge = "x".repeat(16_000);
    let (first, more) = (block(&fields(HEALTH)), block(&[("x-huge", &huge), ("x-huge", &huge)]));
    let list = [
        frame(kind::HEADERS, flag::END_STREAM, 1, &first),
        frame(kind::CONTINUATION, flag::NONE, 1, &more[..16_000]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &more[16_000..]),
    ];
    vec![
        ("DATA with only padding", padded, Ends),
        ("an upper-case header", whole(&with("X-Upper", "1")), Ends),
        ("a line break in a header", whole(&with("x-split", "a\r\nb: c")), Ends),
        ("a header of the connection", whole(&with("connection", "close")), Resets(code::PROTOCOL_ERROR)),
        ("a pseudo-header twice", whole(&with(":path", HEALTH)), Resets(code::PROTOCOL_ERROR)),
        ("an unknown pseudo-header", whole(&with(":status", "200")), Resets(code::PROTOCOL_ERROR)),
        (
            "a pseudo-header after other headers",
            whole(&[&fields(HEALTH)[..], &[("x", "1"), (":a", "")]].concat()),
            Ends,
        ),
        ("no path", whole(&without(":path")), Resets(code::PROTOCOL_ERROR)),
        ("no scheme", whole(&without(":scheme")), Resets(code::PROTOCOL_ERROR)),
        ("no method", whole(&without(":method")), Resets(code::PROTOCOL_ERROR)),
        ("a wrong content-length", whole(&with("content-length", "7")), Resets(code::PROTOCOL_ERROR)),
        (
            "trailers without END_STREAM",
            [open(1, HEALTH), headers(&[("x", "1")])].concat(),
            Resets(code::PROTOCOL_ERROR),
        ),
        (
            "trailers with a path",
            [open(1, HEALTH), frame(kind::HEADERS, 5, 1, &late)].concat(),
            Resets(code::PROTOCOL_ERROR),
        ),
        ("a header list of 32 KiB", list.concat(), Answers),
        ("a call of an unknown method", call(1, "/no.such.Service/Method", &[]), Answers),
        ("an invalid path", call(1, "*", &[]), Answers),
        ("a call by GET", whole(&[&[(":method", "GET")], &fields(HEALTH)[1..]].concat()), Answers),
        ("a call without a content type", whole(&without("content-type")), Answers),
        ("a call without a message", body(&[]), Answers),
        ("a truncated message", body(&message(b"12345")[..7]), Answers),
        ("a message of 4 GiB", body(&[0, 0xff, 0xff, 0xff, 0xff, 1]), Answers),
        ("a compressed message without an encoding", body(&[1, 0, 0, 0, 0]), Answers),
        ("a message with an invalid compression flag", body(&[7, 0, 0, 0, 0]), Answers),
        ("two messages", body(&[message(&[]), message(&[])].concat()), Answers),
        ("a message that is not protobuf", body(&message(&[0xff; 20])), Answers),
    ]
}

/// Sends frames of stream 1 on a new connection and returns the reaction of the server.
///
/// # Panics
/// If the connection stays open, but does not answer a valid call.
async fn outcome(service: &TestService, name: &str, frames: &[u8]) -> ViolationOutcome {
    let mut connection = RawConnection::connect(service.address).await;
    connection.send(frames).await.unwrap();
    let _ = connection.send(&call(VALID_STREAM, HEALTH, &[])).await;
    let (mut reaction, mut answered, mut goaway) = (Ignored, false, None);
    // The reaction and the response to the valid call may come in any order.
    while reaction == Ignored || !answered {
        let max_wait = if answered { REACTION_WAIT } else { MAX_WAIT };
        let Ok(next) = timeout(max_wait, connection.next()).await else { break };
        let Some(frame) = next else {
            assert!(goaway > Some(code::NO_ERROR), "{name}: the connection ended without a GOAWAY with an error");
            return Ends;
        };
        match (frame.kind, frame.stream) {
            (kind::GOAWAY, _) => goaway = frame.code(),
            (kind::RST_STREAM, 1) => reaction = Resets(frame.code().unwrap()),
            (kind::HEADERS, 1) if frame.has(flag::END_STREAM) => reaction = Answers,
            (kind::HEADERS, VALID_STREAM) => answered |= frame.has(flag::END_STREAM),
            _ => {}
        }
    }
    assert!(answered, "{name}: a valid call on the same connection is not answered");
    reaction
}

/// Sends each violation on a new connection.
///
/// # Panics
/// If a reaction is not the expected one.
async fn send_violations(service: &TestService, violations: &[ProtocolViolation]) -> AbuseTotals {
    let mut wrong = Vec::new();
    for (name, frames, expected) in violations {
        let outcome = outcome(service, name, frames).await;
        if outcome != *expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let connections = violations.len().try_into().unwrap();
    AbuseTotals { connections, sent: connections }
}

/// Returns the bytes of a connection that reads a user.
fn session_bytes() -> Vec<u8> {
    [PREFACE, &settings(&[]), &call(1, GET_USER, &get_user(BACKGROUND_USER)), &ping(), &call(3, HEALTH, &[])].concat()
}

/// Sends every prefix of the session, then closes the connection in order or with a TCP reset.
async fn truncations(service: &TestService) -> AbuseTotals {
    let session_bytes = session_bytes();
    for cut in 0..session_bytes.len() {
        let mut connection = RawConnection::connect_tcp(service.address).await;
        connection.send(&session_bytes[..cut]).await.unwrap();
        if cut % 2 == 0 {
            connection.shutdown_write().await;
            connection.read_to_end(MAX_WAIT).await;
        } else {
            connection.abort();
        }
    }
    let connections = session_bytes.len().try_into().unwrap();
    AbuseTotals { connections, sent: connections }
}

/// Returns a session with one to four random mutations.
fn mutated(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = session_bytes();
    for _ in 0..random.random_range(1..=4) {
        // Mutations skip the preface, which the truncations cover, so that most get past it.
        let at = random.random_range(PREFACE.len() - 1..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.remove(at)),
            4 => {
                let end = (at + random.random_range(1..40)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
            _ => bytes.truncate(at.max(2 * PREFACE.len())),
        }
    }
    bytes
}

/// Sends mutated sessions, 32 at a time; each connection must end once its client stops sending.
async fn mutations(service: &TestService, seed: u64, number: u64) -> AbuseTotals {
    let at_once = Arc::new(Semaphore::new(32));
    let mut running = JoinSet::new();
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..number {
        let (bytes, address) = (mutated(&mut random), service.address);
        let permit = Arc::clone(&at_once).acquire_owned().await.unwrap();
        running.spawn(async move {
            let _permit = permit;
            let mut connection = RawConnection::connect_tcp(address).await;
            let _ = connection.send(&bytes).await;
            connection.shutdown_write().await;
            let ended = timeout(MAX_WAIT, connection.respond_until_end()).await;
            assert!(ended.is_ok(), "mutation {n} of TIDINGS_SEED={seed}: the connection does not end");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    AbuseTotals { connections: number, sent: number }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_input_ends_only_its_own_stream_or_connection() {
    let seed = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let number = std::env::var("TIDINGS_MUTATIONS").map_or(20_000, |text| text.parse().unwrap());
    // Shorter than MAX_WAIT: a mutation may leave a call unfinished.
    let flags = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let mut report = CostReport::start("malformed input", TestService::start("user", &flags).await).await;

    for (name, violations) in
        [("violations by connections", connection_violations()), ("violations by calls", call_violations())]
    {
        report.measure(name, async |service| send_violations(service, &violations).await).await;
    }
    report.measure("a session, truncated at every byte", truncations).await;
    let name = format!("a session, mutated (seed {seed})");
    report.measure(&name, async |service| mutations(service, seed, number).await).await;
    report.finish().await;
}
