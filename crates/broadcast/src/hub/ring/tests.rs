//! What a ring holds and gives; what it makes of losses is played in `rules`.

use super::*;
use crate::model::Stand;

const LARGE: RingLimits = RingLimits { messages: 1000, bytes: 10 << 20 };

fn told(epoch: Epoch, offset: i64, bytes: usize) -> Told {
    Told { epoch, offset, message: Bytes::from(vec![b'x'; bytes]) }
}

/// A ring in which the messages 1 to `count` were heard.
fn ring(epoch: Epoch, count: i64, bytes: usize, limits: RingLimits) -> Ring {
    let mut ring = Ring::new(limits);
    ring.open(Position::beginning(Some(epoch)));
    for offset in 1..=count {
        assert_eq!(ring.hear(told(epoch, offset, bytes)), Heard::Added);
    }
    ring
}

fn at(epoch: Epoch, offset: i64) -> Position {
    Position { epoch: Some(epoch), offset }
}

/// How many messages are taken, and whether there are more.
fn taken(ring: &Ring, after: Position) -> Option<(usize, bool)> {
    match ring.take(after, 0) {
        Taken::Messages { messages, more, .. } => Some((messages.len(), more)),
        Taken::Nothing => Some((0, false)),
        Taken::Behind => None,
    }
}

#[test]
fn a_ring_holds_so_many_messages_and_so_many_bytes_and_always_the_newest() {
    let epoch = Epoch::random();
    let few = ring(epoch, 10, 10, RingLimits { messages: 4, bytes: 1000 });
    assert_eq!((few.bytes(), taken(&few, at(epoch, 5)), taken(&few, at(epoch, 6))), (40, None, Some((4, false))));

    let short = ring(epoch, 10, 10, RingLimits { messages: 100, bytes: 35 });
    assert_eq!((short.bytes(), taken(&short, at(epoch, 6)), taken(&short, at(epoch, 7))), (30, None, Some((3, false))));

    let long = ring(epoch, 10, 1000, RingLimits { messages: 100, bytes: 35 });
    assert_eq!((long.bytes(), taken(&long, at(epoch, 9))), (1000, Some((1, false))));
}

#[test]
fn what_is_heard_early_is_held_within_the_same_limits() {
    let epoch = Epoch::random();
    let mut ring = ring(epoch, 1, 10, RingLimits { messages: 4, bytes: 1000 });
    for offset in 3..100 {
        assert_eq!(ring.hear(told(epoch, offset, 10)), Heard::Astray);
    }
    assert_eq!(ring.bytes(), 10 + 40);
}

#[test]
fn a_frame_has_at_most_256_messages_and_256_kib_unless_one_alone_is_larger() {
    let epoch = Epoch::random();
    assert_eq!(taken(&ring(epoch, 600, 10, LARGE), at(epoch, 0)), Some((256, true)));
    assert_eq!(taken(&ring(epoch, 600, 10, LARGE), at(epoch, 344)), Some((256, false)));
    assert_eq!(taken(&ring(epoch, 10, 64 << 10, LARGE), at(epoch, 0)), Some((4, true)));
    assert_eq!(taken(&ring(epoch, 10, (64 << 10) + 1, LARGE), at(epoch, 0)), Some((3, true)));
    assert_eq!(taken(&ring(epoch, 3, 300 << 10, LARGE), at(epoch, 1)), Some((1, true)));
}

#[test]
fn all_who_take_a_message_share_its_bytes() {
    let epoch = Epoch::random();
    let mut ring = Ring::new(LARGE);
    ring.open(Position::beginning(Some(epoch)));
    let message = told(epoch, 1, 100);
    let bytes = message.message.as_ptr();
    ring.hear(message);

    for _ in 0..3 {
        match ring.take(at(epoch, 0), 0) {
            Taken::Messages { messages, .. } => assert_eq!(messages[0].as_ptr(), bytes),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_is_ahead_of_a_ring_waits_and_who_is_in_another_epoch_reads() {
    let (epoch, other) = (Epoch::random(), Epoch::random());
    let ring = ring(epoch, 5, 10, LARGE);
    assert_eq!(taken(&ring, at(epoch, 5)), Some((0, false)));
    assert_eq!(taken(&ring, at(epoch, 9)), Some((0, false)));
    assert_eq!(taken(&ring, at(other, 5)), None);
}

#[test]
fn a_late_message_of_an_epoch_that_is_over_asks_redis_and_changes_nothing() {
    let (old, new) = (Epoch::random(), Epoch::random());
    let mut ring = ring(new, 5, 10, LARGE);

    assert_eq!(ring.hear(told(old, 6, 10)), Heard::Astray);
    let from = ring.begin_fill();
    assert_eq!((from, ring.head()), (at(new, 5), at(new, 5)));
    let stand = Stand { head: at(new, 5), oldest: 1, time: None };
    assert!(ring.fill(&Page { stand, first: 6, messages: Vec::new() }));

    assert_eq!((ring.head(), ring.losses(), taken(&ring, at(new, 0))), (at(new, 5), 0, Some((5, false))));
}

/// What Redis answers about a channel whose messages 1 to `head` are all kept.
fn page(epoch: Epoch, after: i64, head: i64) -> Page {
    let messages = (after..head).map(|_| Bytes::from_static(b"x")).collect();
    Page { stand: Stand { head: at(epoch, head), oldest: 1, time: None }, first: after + 1, messages }
}

#[test]
fn what_is_heard_while_a_hole_is_filled_is_taken_when_it_follows() {
    let epoch = Epoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    ring.hear(told(epoch, 8, 10));
    let from = ring.begin_fill();
    ring.hear(told(epoch, 9, 10));
    ring.hear(told(epoch, 10, 10));

    assert!(ring.fill(&page(epoch, from.offset, 8)));
    assert_eq!((ring.head(), taken(&ring, at(epoch, 0))), (at(epoch, 10), Some((10, false))));
}

#[test]
fn what_is_heard_beyond_another_hole_while_one_is_filled_makes_another_fill_due() {
    let epoch = Epoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    ring.hear(told(epoch, 7, 10));
    let from = ring.begin_fill();
    ring.hear(told(epoch, 9, 10));

    assert!(!ring.fill(&page(epoch, from.offset, 7)));
    assert_eq!(ring.head(), at(epoch, 7));
    let from = ring.begin_fill();
    assert!(ring.fill(&page(epoch, from.offset, 9)));
    assert_eq!((ring.head(), taken(&ring, at(epoch, 0))), (at(epoch, 9), Some((9, false))));
}

#[test]
fn a_ring_that_lacks_more_than_a_page_begins_anew_at_the_head() {
    let epoch = Epoch::random();
    let mut ring = ring(epoch, 5, 10, LARGE);
    let from = ring.begin_fill();
    let mut part = page(epoch, from.offset, 100);
    part.messages.truncate(20);

    assert!(ring.fill(&part));
    assert_eq!((ring.head(), ring.bytes()), (at(epoch, 100), 0));
    assert_eq!((taken(&ring, at(epoch, 5)), taken(&ring, at(epoch, 100))), (None, Some((0, false))));
}
