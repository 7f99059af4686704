//! Tests of what a ring holds and returns. `simulation` tests losses.

use super::*;
use crate::model::ChannelState;

const LARGE: RingLimits = RingLimits { messages: 1000, bytes: 10 << 20 };

fn notification(epoch: ChannelEpoch, offset: i64, bytes: usize) -> MessageNotification {
    MessageNotification { epoch, offset, message: Bytes::from(vec![b'x'; bytes]) }
}

/// Makes a ring that has received the messages 1 to `count`.
fn ring(epoch: ChannelEpoch, count: i64, bytes: usize, limits: RingLimits) -> Ring {
    let mut ring = Ring::new(limits);
    ring.start_at(Position::beginning(Some(epoch)));
    for offset in 1..=count {
        assert_eq!(ring.receive(notification(epoch, offset, bytes)), ReceiveOutcome::Appended);
    }
    ring
}

fn at(epoch: ChannelEpoch, offset: i64) -> Position {
    Position { epoch: Some(epoch), offset }
}

/// Reads behind a position: the number of messages, and true if the ring has more. `None` for a
/// miss.
fn read(ring: &Ring, after: Position) -> Option<(usize, bool)> {
    match ring.read(after, 0) {
        RingRead::Messages { messages, more, .. } => Some((messages.len(), more)),
        RingRead::Empty => Some((0, false)),
        RingRead::Miss => None,
    }
}

/// The newest message is always kept, even if it is larger than the limit.
#[test]
fn a_ring_is_bounded_in_messages_and_bytes() {
    let epoch = ChannelEpoch::random();
    let few = ring(epoch, 10, 10, RingLimits { messages: 4, bytes: 1000 });
    assert_eq!((few.bytes(), read(&few, at(epoch, 5)), read(&few, at(epoch, 6))), (40, None, Some((4, false))));

    let short = ring(epoch, 10, 10, RingLimits { messages: 100, bytes: 35 });
    assert_eq!((short.bytes(), read(&short, at(epoch, 6)), read(&short, at(epoch, 7))), (30, None, Some((3, false))));

    let long = ring(epoch, 10, 1000, RingLimits { messages: 100, bytes: 35 });
    assert_eq!((long.bytes(), read(&long, at(epoch, 9))), (1000, Some((1, false))));
}

#[test]
fn notifications_ahead_of_a_hole_are_bounded_like_the_ring() {
    let epoch = ChannelEpoch::random();
    let mut ring = ring(epoch, 1, 10, RingLimits { messages: 4, bytes: 1000 });
    for offset in 3..100 {
        assert_eq!(ring.receive(notification(epoch, offset, 10)), ReceiveOutcome::OutOfSequence);
    }
    assert_eq!(ring.bytes(), 10 + 40);
}

/// A single message may be larger.
#[test]
fn a_frame_has_at_most_256_messages_and_256_kib() {
    let epoch = ChannelEpoch::random();
    assert_eq!(read(&ring(epoch, 600, 10, LARGE), at(epoch, 0)), Some((256, true)));
    assert_eq!(read(&ring(epoch, 600, 10, LARGE), at(epoch, 344)), Some((256, false)));
    assert_eq!(read(&ring(epoch, 10, 64 << 10, LARGE), at(epoch, 0)), Some((4, true)));
    assert_eq!(read(&ring(epoch, 10, (64 << 10) + 1, LARGE), at(epoch, 0)), Some((3, true)));
    assert_eq!(read(&ring(epoch, 3, 300 << 10, LARGE), at(epoch, 1)), Some((1, true)));
}

#[test]
fn all_readers_of_a_message_share_its_bytes() {
    let epoch = ChannelEpoch::random();
    let mut ring = Ring::new(LARGE);
    ring.start_at(Position::beginning(Some(epoch)));
    let message = notification(epoch, 1, 100);
    let bytes = message.message.as_ptr();
    ring.receive(message);

    for _ in 0..3 {
        match ring.read(at(epoch, 0), 0) {
            RingRead::Messages { messages, .. } => assert_eq!(messages[0].as_ptr(), bytes),
            other => panic!("{other:?}"),
        }
    }
}

/// A miss makes the reader read from Redis.
#[test]
fn a_reader_ahead_waits_and_one_in_another_epoch_misses() {
    let (epoch, other) = (ChannelEpoch::random(), ChannelEpoch::random());
    let ring = ring(epoch, 5, 10, LARGE);
    assert_eq!(read(&ring, at(epoch, 5)), Some((0, false)));
    assert_eq!(read(&ring, at(epoch, 9)), Some((0, false)));
    assert_eq!(read(&ring, at(other, 5)), None);
}

/// It only triggers a fill, and Redis confirms the present epoch.
#[test]
fn a_late_message_of_a_past_epoch_changes_nothing() {
    let (old, new) = (ChannelEpoch::random(), ChannelEpoch::random());
    let mut ring = ring(new, 5, 10, LARGE);

    assert_eq!(ring.receive(notification(old, 6, 10)), ReceiveOutcome::OutOfSequence);
    let from = ring.begin_fill();
    assert_eq!((from, ring.head()), (at(new, 5), at(new, 5)));
    let state = ChannelState { head: at(new, 5), oldest: 1, publish_time: None };
    assert!(ring.fill(&ChannelPage { state, first: 6, messages: Vec::new() }));

    assert_eq!((ring.head(), ring.losses(), read(&ring, at(new, 0))), (at(new, 5), 0, Some((5, false))));
}

/// Makes the page behind `after` of a channel that keeps all its messages 1 to `head`.
fn page(epoch: ChannelEpoch, after: i64, head: i64) -> ChannelPage {
    let messages = (after..head).map(|_| Bytes::from_static(b"x")).collect();
    ChannelPage {
        state: ChannelState { head: at(epoch, head), oldest: 1, publish_time: None },
        first: after + 1,
        messages,
    }
}

#[test]
fn notifications_during_a_fill_are_appended_if_they_follow() {
    let epoch = ChannelEpoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    ring.receive(notification(epoch, 8, 10));
    let from = ring.begin_fill();
    ring.receive(notification(epoch, 9, 10));
    ring.receive(notification(epoch, 10, 10));

    assert!(ring.fill(&page(epoch, from.offset, 8)));
    assert_eq!((ring.head(), read(&ring, at(epoch, 0))), (at(epoch, 10), Some((10, false))));
}

#[test]
fn a_second_hole_during_a_fill_requires_another_fill() {
    let epoch = ChannelEpoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    ring.receive(notification(epoch, 7, 10));
    let from = ring.begin_fill();
    ring.receive(notification(epoch, 9, 10));

    assert!(!ring.fill(&page(epoch, from.offset, 7)));
    assert_eq!(ring.head(), at(epoch, 7));
    let from = ring.begin_fill();
    assert!(ring.fill(&page(epoch, from.offset, 9)));
    assert_eq!((ring.head(), read(&ring, at(epoch, 0))), (at(epoch, 9), Some((9, false))));
}

#[test]
fn a_ring_that_misses_more_than_a_page_restarts_at_the_head() {
    let epoch = ChannelEpoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    let from = ring.begin_fill();
    let mut partial = page(epoch, from.offset, 100);
    partial.messages.truncate(20);

    assert!(ring.fill(&partial));
    assert_eq!((ring.head(), ring.bytes()), (at(epoch, 100), 0));
    assert_eq!((read(&ring, at(epoch, 5)), read(&ring, at(epoch, 100))), (None, Some((0, false))));
}
