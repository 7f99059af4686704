//! A reader that never reads, in a process of its own, so that the memory of the process can be measured.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;

use std::time::Duration;

use tokio::time::timeout;

use tidings_proto::broadcast::subscribe_response::Frame;

use support::client::{latest, published, saying};
use support::{Broadcasts, PATIENCE};

/// What a reader that does not read may cost: a frame of 256 KiB between ring and connection, 400 KiB that HTTP/2 takes
/// to send, and 64 KiB that the client takes; three times that, for whatever the allocator makes of it.
const READER_MAX: usize = 2 * 1024 * 1024;
const READERS: usize = 32;

/// The bytes of memory that this process occupies.
fn occupied() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_costs_a_constant_and_delays_nobody() {
    let broadcasts = Broadcasts::start().await;
    let mut reader = broadcasts.another_client(0).listen("lobby").await;
    let publisher = broadcasts.another_client(0);
    let mut round = 0;
    let mut publish = async || {
        round += 1;
        let batch = (0..50).map(|_| saying("lobby", &"x".repeat(60_000))).collect();
        let last = published(publisher.batch(batch).await.unwrap().last().unwrap());
        assert_eq!(last.1, 50 * round);
        let messages = timeout(PATIENCE, reader.messages(50)).await.expect("the reader is not held up");
        messages.iter().map(|message| message.data.len()).sum::<usize>()
    };
    for _ in 0..20 {
        publish().await; // until everything has the size that it needs
    }

    let before = occupied();
    let mut idle = Vec::new();
    for _ in 0..READERS {
        idle.push(broadcasts.narrow_client(0).subscribe(latest("lobby")).await);
    }
    let (mut bytes, mut most) = (0, 0);
    for _ in 0..35 {
        bytes += publish().await;
        most = most.max(occupied());
    }

    let grown = most.saturating_sub(before);
    assert!(bytes > 100_000_000, "{bytes}");
    assert!(grown < READERS * READER_MAX, "{} KiB for {READERS} readers", grown / 1024);

    // Those that did not read are as good as others when they begin to.
    let mut late = idle.pop().unwrap();
    let head = broadcasts.get("lobby").await.unwrap();
    let mut next = 20 * 50 + 1;
    loop {
        match late.frame().await {
            Frame::CaughtUp(caught_up) => assert_eq!(caught_up.head + 1, next),
            Frame::Gap(gap) => {
                assert_eq!(gap.first_offset, next);
                next = gap.last_offset + 1;
            }
            Frame::Messages(frame) => {
                for message in frame.messages {
                    assert_eq!(message.offset, next);
                    next += 1;
                }
            }
            other => panic!("{other:?}"),
        }
        if next > head.head {
            break;
        }
    }
    late.assert_silent(Duration::from_millis(100)).await;
}
