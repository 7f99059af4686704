//! Clients that take their time: whatever they leave unfinished ends, and nobody waits for them.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, interval, timeout};

use super::frames::{GET_USER, HEALTH, PREFACE, block, fields, flag, frame, get_user, kind, message, open, settings};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use crate::service::{SOON, Service};

/// How many clients are slow at a time.
const CLIENTS: u64 = 200;
/// How often a slow client sends a byte.
const PACE: Duration = Duration::from_millis(200);

/// Opens connections; on each, sends `first` at once and then `bytes` one at a time, until the server closes it.
///
/// Returns how long the longest lived one lived.
async fn dribble(service: &Service, first: &[u8], bytes: &[u8]) -> (Attack, Duration) {
    let start = Instant::now();
    let client = async || {
        let mut raw = Raw::silent(service.address).await;
        raw.send(first).await.unwrap();
        let mut pace = interval(PACE);
        for byte in bytes {
            // Whoever answers nothing reads nothing either; that the connection has ended shows when sending.
            pace.tick().await;
            if raw.send(&[*byte]).await.is_err() {
                return;
            }
        }
        raw.rest(SOON).await;
    };
    timeout(2 * SOON, join_all((0..CLIENTS).map(|_| client()))).await.expect("the end of all connections");
    (Attack { connections: CLIENTS, sent: CLIENTS }, start.elapsed())
}

/// Calls whose request comes byte by byte, on connections that behave otherwise: each is answered when its time is over.
async fn dribble_a_request(service: &Service) -> Attack {
    let start = Instant::now();
    let client = async || {
        let mut raw = Raw::connect(service.address).await;
        raw.send(&open(1, GET_USER)).await.unwrap();
        let request = message(&get_user("nobody-of-this-name-is-here"));
        let mut pace = interval(PACE);
        for byte in request {
            pace.tick().await;
            raw.send(&frame(kind::DATA, flag::NONE, 1, &[byte])).await.unwrap();
        }
        raw.behave_until(kind::HEADERS).await.is_some_and(|answer| answer.has(flag::END_STREAM))
    };
    let answered = timeout(2 * SOON, join_all((0..CLIENTS).map(|_| client()))).await.expect("an answer to each call");
    assert!(answered.into_iter().all(|answered| answered), "calls were not answered");
    // 5 s for a call of this method.
    assert!(start.elapsed() < Duration::from_secs(12), "answered after {:?}", start.elapsed());
    Attack { connections: CLIENTS, sent: CLIENTS }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_finished_ends() {
    let flags = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let mut ledger = Ledger::open("slow clients", Service::start("user", &flags).await).await;
    let headers = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields(HEALTH)));
    let part = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
    let more = frame(kind::CONTINUATION, flag::NONE, 1, &block(&[("x-slow", &"x".repeat(1000))]));
    let begun = [PREFACE, &settings(&[])].concat();
    let inside = [PREFACE, &settings(&[]), &part].concat();

    let cases: [(&str, &[u8], &[u8]); 5] = [
        ("sockets that say nothing", &[], &[]),
        ("a preface, byte by byte", &[], PREFACE),
        ("connections that answer no PING", &begun, &[]),
        ("headers, byte by byte", &begun, &headers),
        ("more headers, byte by byte", &inside, &more),
    ];
    for (name, first, bytes) in cases {
        let mut lived = Duration::ZERO;
        let attack = ledger.enter(name, async |service| {
            let (attack, longest) = dribble(service, first, bytes).await;
            lived = longest;
            attack
        });
        attack.await;
        // 3 s for the preface, 2 s for the answer to a PING; the rest is for a busy machine.
        assert!(lived < Duration::from_secs(8), "{name}: lived {lived:?}");
    }
    ledger.enter("requests, byte by byte", dribble_a_request).await;
    ledger.close().await;
}
