//! Frames as fast as a connection takes them: what is abuse ends the connection, what is not costs only its own.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{
    GET_USER, HEALTH, block, call, fields, flag, frame, get_user, kind, open, ping, reset, settings, streams,
};
use super::ledger::{Attack, Ledger};
use super::raw::{Flooded, Raw};
use crate::service::Service;

/// How long each flood lasts.
const WHILE: Duration = Duration::from_secs(1);

/// Floods connection after connection until the time is over, as an attacker would who is thrown out.
async fn again_and_again<I>(service: &Service, flood: impl Fn() -> I) -> (Attack, Vec<Flooded>)
where
    I: Iterator<Item = Vec<u8>>,
{
    let until = Instant::now() + WHILE;
    let mut floods = Vec::new();
    while Instant::now() < until {
        floods.push(Raw::connect(service.address).await.flood(until, flood()).await);
    }
    let sent = floods.iter().map(|flood| flood.units).sum();
    (Attack { connections: floods.len().try_into().unwrap(), sent }, floods)
}

/// A flood that the server does not put up with: it ends the connection, whatever is left of the second.
async fn abuse<I: Iterator<Item = Vec<u8>>>(ledger: &mut Ledger, name: &str, flood: impl Fn() -> I) {
    let mut ended = Vec::new();
    ledger
        .enter(name, async |service| {
            let (attack, floods) = again_and_again(service, flood).await;
            ended = floods;
            attack
        })
        .await;
    let (_, finished) = ended.split_last().unwrap(); // the last one was ended by the clock
    assert!(!finished.is_empty(), "{name}: no connection was ended");
    let spared = finished.iter().find(|flood| !flood.was_ended());
    assert!(spared.is_none(), "{name}: {spared:?}");
}

/// A flood that is legal, and goes on for its second.
async fn nuisance<I: Iterator<Item = Vec<u8>>>(ledger: &mut Ledger, name: &str, flood: impl Fn() -> I) {
    ledger
        .enter(name, async |service| {
            let (attack, floods) = again_and_again(service, flood).await;
            let ended = floods.iter().find(|flood| flood.refused);
            assert!(ended.is_none(), "{name}: {ended:?}");
            attack
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_its_connection_or_costs_only_its_own() {
    let mut ledger = Ledger::open("floods of frames", Service::start("user", &[]).await).await;

    abuse(&mut ledger, "rapid reset", || {
        streams().map(|stream| [call(stream, GET_USER, &get_user("nobody")), reset(stream)].concat())
    })
    .await;
    abuse(&mut ledger, "rapid reset of calls without a message", || {
        streams().map(|stream| [open(stream, GET_USER), reset(stream)].concat())
    })
    .await;
    abuse(&mut ledger, "CONTINUATION without end", || {
        let first = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
        let more = frame(kind::CONTINUATION, flag::NONE, 1, &block(&[("x-more", &"x".repeat(1000))]));
        std::iter::once(first).chain(std::iter::repeat(more))
    })
    .await;
    abuse(&mut ledger, "empty CONTINUATION without end", || {
        let first = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
        std::iter::once(first).chain(std::iter::repeat(frame(kind::CONTINUATION, flag::NONE, 1, &[])))
    })
    .await;
    abuse(&mut ledger, "bytes of a message, one in a frame", || {
        let byte = frame(kind::DATA, flag::NONE, 1, &[0]);
        std::iter::once(open(1, HEALTH)).chain(std::iter::repeat(byte))
    })
    .await;
    abuse(&mut ledger, "calls, far more than may run at once", || streams().map(|stream| call(stream, HEALTH, &[])))
        .await;
    nuisance(&mut ledger, "PING", || std::iter::repeat_with(ping)).await;
    nuisance(&mut ledger, "SETTINGS", || std::iter::repeat(settings(&[(4, 65_535)]))).await;
    nuisance(&mut ledger, "PRIORITY", || {
        streams().map(|stream| frame(kind::PRIORITY, flag::NONE, stream + 2, &[0, 0, 0, 1, 7]))
    })
    .await;
    nuisance(&mut ledger, "frames of an unknown type", || std::iter::repeat(frame(0xbb, flag::NONE, 1, b"what?")))
        .await;
    ledger.close().await;
}
