//! Memory of readers that never read; a test binary of its own, so that its memory can be measured.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;

use std::time::Duration;

use tidings_devstack::testing::PATIENCE;
use tokio::time::timeout;

use tidings_proto::broadcast::subscribe_response::Frame;

use support::BroadcastCluster;
use support::client::{latest, published, text_message};

/// Most bytes that a stalled reader may cost: a frame of 256 KiB, 400 KiB in the send buffer of
/// HTTP/2, and 64 KiB in the client; times three, for the overhead of the allocator.
const READER_MAX: usize = 2 * 1024 * 1024;
const READERS: usize = 32;

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A stalled reader does not delay other readers either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_costs_constant_memory() {
    let cluster = BroadcastCluster::start().await;
    let mut reader = cluster.new_client(0).listen("lobby").await;
    let publisher = cluster.new_client(0);
    let mut round = 0;
    let mut publish = async || {
        round += 1;
        let batch = (0..50).map(|_| text_message("lobby", &"x".repeat(60_000))).collect();
        let last = published(publisher.batch(batch).await.unwrap().last().unwrap());
        assert_eq!(last.1, 50 * round);
        let messages = timeout(PATIENCE, reader.messages(50)).await.expect("the other reader gets all messages");
        messages.iter().map(|message| message.data.len()).sum::<usize>()
    };
    for _ in 0..20 {
        publish().await; // until all buffers have their full size
    }

    let before = resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..READERS {
        idle.push(cluster.client_with_small_windows(0).subscribe(latest("lobby")).await);
    }
    let (mut bytes, mut most) = (0, 0);
    for _ in 0..35 {
        bytes += publish().await;
        most = most.max(resident_bytes());
    }

    let grown = most.saturating_sub(before);
    assert!(bytes > 100_000_000, "{bytes}");
    assert!(grown < READERS * READER_MAX, "{} KiB for {READERS} readers", grown / 1024);

    // A stalled reader gets all kept messages once it reads.
    let mut late = idle.pop().unwrap();
    let head = cluster.get("lobby").await.unwrap();
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
