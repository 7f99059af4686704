//! What can not be understood: frames that break the rules, frames cut short, bytes at random.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frames::{
    GET_USER, HEALTH, PREFACE, block, call, code, fields, flag, frame, get_user, kind, last, message, open, ping,
    reset, setting, settings,
};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use super::victims::VICTIM;
use crate::service::{SOON, Service};

/// The stream of a call on the same connection that is as it should be.
const HONEST: u32 = 101;
/// How long a second answer may come after the first.
const SHORTLY: Duration = Duration::from_millis(300);

/// What can come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The connection ends, after a GOAWAY that names an error: which one, h2 does not always say as the RFC would.
    Ends,
    /// The stream ends, with this reason; the connection goes on.
    Resets(u32),
    /// The call is answered, as far as this can be seen without understanding it; the connection goes on.
    Answers,
    /// Nothing happens; the connection goes on.
    Nothing,
}

use Outcome::{Answers, Ends, Nothing, Resets};

/// A sin, its frames, and what has to come of it.
type Sin = (&'static str, Vec<u8>, Outcome);

/// Against the rules of connections.
fn of_connections() -> Vec<Sin> {
    let (none, headers) = (flag::NONE, block(&fields(HEALTH)));
    let half_open = |last: Vec<u8>| [frame(kind::HEADERS, none, 1, &headers), last].concat();
    let window = |stream, by: u32| frame(kind::WINDOW_UPDATE, none, stream, &by.to_be_bytes());
    vec![
        ("DATA on stream 0", last(0, &[]), Ends),
        ("HEADERS on stream 0", open(0, HEALTH), Ends),
        ("HEADERS on a stream of the server's", open(2, HEALTH), Ends),
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
        ("CONTINUATION of nothing", frame(kind::CONTINUATION, 4, 1, &headers), Ends),
        ("PING inside of headers", half_open(ping()), Ends),
        ("other headers inside of headers", half_open(open(3, HEALTH)), Ends),
        ("a frame larger than allowed", frame(kind::DATA, none, 1, &[0; 16_385]), Ends),
        ("GOAWAY on a stream", frame(kind::GOAWAY, none, 1, &[0; 8]), Ends),
        ("HEADERS that are only padding", frame(kind::HEADERS, 0xd, 1, &[9, 0]), Ends),
        ("a header index of 0", frame(kind::HEADERS, 5, 1, &[0x80]), Ends),
        ("a header index of 100", frame(kind::HEADERS, 5, 1, &[0xe4]), Ends),
        ("a header cut short", frame(kind::HEADERS, 5, 1, &[0, 100, b'x']), Ends),
        ("a header length without end", frame(kind::HEADERS, 5, 1, &[0xff; 100]), Ends),
        ("a header table of 2^30", frame(kind::HEADERS, 5, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 3]), Ends),
        ("a frame of an unknown type", frame(0xbb, 0xff, 7, b"what?"), Nothing),
        ("a setting of an unknown name", settings(&[(0xbbbb, 7)]), Nothing),
        ("PRIORITY of itself", frame(kind::PRIORITY, none, 1, &[0, 0, 0, 1, 0]), Resets(code::PROTOCOL_ERROR)),
    ]
}

/// Against the rules of calls; each on stream 1.
fn of_calls() -> Vec<Sin> {
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
        ("DATA that are only padding", padded, Ends),
        ("an upper-case header", whole(&with("X-Upper", "1")), Ends),
        ("a line break in a header", whole(&with("x-split", "a\r\nb: c")), Ends),
        ("a header of the connection", whole(&with("connection", "close")), Resets(code::PROTOCOL_ERROR)),
        ("a pseudo-header twice", whole(&with(":path", HEALTH)), Resets(code::PROTOCOL_ERROR)),
        ("an unknown pseudo-header", whole(&with(":status", "200")), Resets(code::PROTOCOL_ERROR)),
        ("a pseudo-header too late", whole(&[&fields(HEALTH)[..], &[("x", "1"), (":a", "")]].concat()), Ends),
        ("no path", whole(&without(":path")), Resets(code::PROTOCOL_ERROR)),
        ("no scheme", whole(&without(":scheme")), Resets(code::PROTOCOL_ERROR)),
        ("no method", whole(&without(":method")), Resets(code::PROTOCOL_ERROR)),
        ("another length than was said", whole(&with("content-length", "7")), Resets(code::PROTOCOL_ERROR)),
        ("trailers that do not end", [open(1, HEALTH), headers(&[("x", "1")])].concat(), Resets(code::PROTOCOL_ERROR)),
        (
            "trailers with a path",
            [open(1, HEALTH), frame(kind::HEADERS, 5, 1, &late)].concat(),
            Resets(code::PROTOCOL_ERROR),
        ),
        ("a header list of 32 KiB", list.concat(), Answers),
        ("a call of no method", call(1, "/no.such.Service/Method", &[]), Answers),
        ("a path that is none", call(1, "*", &[]), Answers),
        ("a call by GET", whole(&[&[(":method", "GET")], &fields(HEALTH)[1..]].concat()), Answers),
        ("a call without a content type", whole(&without("content-type")), Answers),
        ("a call without a message", body(&[]), Answers),
        ("a message cut short", body(&message(b"12345")[..7]), Answers),
        ("a message of 4 GiB", body(&[0, 0xff, 0xff, 0xff, 0xff, 1]), Answers),
        ("a message compressed without a word", body(&[1, 0, 0, 0, 0]), Answers),
        ("a message compressed in an unknown way", body(&[7, 0, 0, 0, 0]), Answers),
        ("two messages", body(&[message(&[]), message(&[])].concat()), Answers),
        ("a message that is no protobuf", body(&message(&[0xff; 20])), Answers),
    ]
}

/// What comes of frames on stream 1 of a connection of its own.
///
/// # Panics
/// If the connection goes on, and an honest call on it is not answered.
async fn outcome(service: &Service, name: &str, frames: &[u8]) -> Outcome {
    let mut raw = Raw::connect(service.address).await;
    raw.send(frames).await.unwrap();
    let _ = raw.send(&call(HONEST, HEALTH, &[])).await;
    let (mut seen, mut answered, mut goaway) = (Nothing, false, None);
    // The answers may come in any order.
    while seen == Nothing || !answered {
        let patience = if answered { SHORTLY } else { SOON };
        let Ok(next) = timeout(patience, raw.next()).await else { break };
        let Some(frame) = next else {
            assert!(goaway > Some(code::NO_ERROR), "{name}: the connection ended without a word");
            return Ends;
        };
        match (frame.kind, frame.stream) {
            (kind::GOAWAY, _) => goaway = frame.code(),
            (kind::RST_STREAM, 1) => seen = Resets(frame.code().unwrap()),
            (kind::HEADERS, 1) if frame.has(flag::END_STREAM) => seen = Answers,
            (kind::HEADERS, HONEST) => answered |= frame.has(flag::END_STREAM),
            _ => {}
        }
    }
    assert!(answered, "{name}: an honest call on the same connection is not answered");
    seen
}

/// Commits sins, each on a connection of its own.
///
/// # Panics
/// If what comes of any of them is not what has to.
async fn commit(service: &Service, sins: &[Sin]) -> Attack {
    let mut wrong = Vec::new();
    for (name, frames, expected) in sins {
        let outcome = outcome(service, name, frames).await;
        if outcome != *expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let connections = sins.len().try_into().unwrap();
    Attack { connections, sent: connections }
}

/// A connection on which a user is read, as bytes.
fn session() -> Vec<u8> {
    [PREFACE, &settings(&[]), &call(1, GET_USER, &get_user(VICTIM)), &ping(), &call(3, HEALTH, &[])].concat()
}

/// Sends every beginning of a session and goes away, by an end or by a reset.
async fn truncations(service: &Service) -> Attack {
    let session = session();
    for cut in 0..session.len() {
        let mut raw = Raw::silent(service.address).await;
        raw.send(&session[..cut]).await.unwrap();
        if cut % 2 == 0 {
            raw.finish().await;
            raw.rest(SOON).await;
        } else {
            raw.abort();
        }
    }
    let connections = session.len().try_into().unwrap();
    Attack { connections, sent: connections }
}

/// A session in which one to four things were changed at random.
fn mutated(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = session();
    for _ in 0..random.random_range(1..=4) {
        // What is before the settings was tried often enough by the cuts: most changes shall get further.
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

/// Sends sessions that were changed at random, many at a time; each must end when its client has nothing more to say.
async fn mutations(service: &Service, seed: u64, number: u64) -> Attack {
    let at_once = Arc::new(Semaphore::new(32));
    let mut running = JoinSet::new();
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..number {
        let (bytes, address) = (mutated(&mut random), service.address);
        let permit = Arc::clone(&at_once).acquire_owned().await.unwrap();
        running.spawn(async move {
            let _permit = permit;
            let mut raw = Raw::silent(address).await;
            let _ = raw.send(&bytes).await;
            raw.finish().await;
            let ended = timeout(SOON, raw.behave()).await;
            assert!(ended.is_ok(), "mutation {n} of TIDINGS_SEED={seed} keeps its connection");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    Attack { connections: number, sent: number }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_understood_ends_its_stream_or_its_connection_and_nothing_else() {
    let seed = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let number = std::env::var("TIDINGS_MUTATIONS").map_or(20_000, |text| text.parse().unwrap());
    // Shorter than the patience of the test: a mutation may leave a call half sent.
    let flags = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let mut ledger = Ledger::open("what can not be understood", Service::start("user", &flags).await).await;

    for (name, sins) in [("frames against the rules", of_connections()), ("calls against the rules", of_calls())] {
        ledger.enter(name, async |service| commit(service, &sins).await).await;
    }
    ledger.enter("a session, cut at every byte", truncations).await;
    let name = format!("a session, changed at random (seed {seed})");
    ledger.enter(&name, async |service| mutations(service, seed, number).await).await;
    ledger.close().await;
}
