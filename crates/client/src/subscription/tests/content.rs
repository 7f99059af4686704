//! Delivered events: order, duplicates, gaps, resets and positions.

use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, Messages, channel_start};

use super::*;
use crate::fake::channels::{caught_up, gap, heartbeat, message, reset};

#[tokio::test(start_paused = true)]
async fn messages_come_in_order_and_duplicates_are_dropped() {
    let script = vec![
        StreamStep::Send(Frame::CaughtUp(caught_up(3))),
        messages([4, 5]),
        messages([4, 5, 6]),
        messages([6]),
        StreamStep::Send(Frame::Gap(gap(2, 6, Reason::Trimmed))),
        messages([7]),
    ];
    let mut subscription = open(&FakeChannels::new([script]));

    assert_eq!(subscription.next().await.unwrap(), Event::CaughtUp(caught_up(3)));
    assert_eq!(events(&mut subscription, 4).await, message_events([4, 5, 6, 7]));
}

/// Messages of a frame that `next` has not returned yet are requested from the next instance.
#[tokio::test(start_paused = true)]
async fn unread_messages_of_a_broken_stream_come_again() {
    let other_epoch = Message { epoch: "f".into(), ..message(2) };
    let frame = StreamStep::Send(Frame::Messages(Messages { messages: vec![message(1), other_epoch, message(3)] }));
    let channels = FakeChannels::new([vec![frame], vec![messages([2, 3])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 3).await, message_events(1..4));
    assert_eq!(channels.requests()[1].after(), 1);
}

/// Received messages that `next` has not returned yet do not move the position.
#[tokio::test(start_paused = true)]
async fn a_position_covers_returned_events_only() {
    let channels = FakeChannels::new([vec![StreamStep::Send(Frame::CaughtUp(caught_up(0))), messages([1, 2, 3])]]);
    let mut subscription = open(&channels);
    assert_eq!(subscription.position("c"), None, "no position before the first event");

    for offset in 0..4 {
        subscription.next().await.unwrap();
        assert_eq!(subscription.position("c"), Some(&position(offset)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_resumes_at_a_stored_position() {
    let channels = FakeChannels::new([vec![messages([43])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(42)));

    assert_eq!(events(&mut subscription, 1).await, message_events([43]));
    assert_eq!(channels.requests()[0].after(), 42);
}

#[tokio::test(start_paused = true)]
async fn without_events_a_retry_sends_the_original_start() {
    let channels = FakeChannels::new([vec![heartbeat(), StreamStep::Fail(down())], vec![messages([8, 9])]]);
    let mut subscription = open_at(&channels, Start::last("c", 2));

    assert_eq!(events(&mut subscription, 2).await, message_events([8, 9]));
    assert_eq!(channels.requests()[0].start(), channels.requests()[1].start());
}

#[tokio::test(start_paused = true)]
async fn gaps_and_resets_are_delivered_in_order() {
    let trimmed = gap(1, 4, Reason::Trimmed);
    let of_new_epoch = |offset| Message { epoch: "f".into(), ..message(offset) };
    let script = vec![
        StreamStep::Send(Frame::Gap(trimmed.clone())),
        messages([5]),
        StreamStep::Send(Frame::Reset(reset("f", 9))),
        StreamStep::Send(Frame::Messages(Messages { messages: vec![of_new_epoch(7), of_new_epoch(8)] })),
    ];
    let mut subscription = open_at(&FakeChannels::new([script]), Start::after("c", position(0)));

    let events = events(&mut subscription, 5).await;

    let rest = [Event::Reset(reset("f", 9)), Event::Message(of_new_epoch(7)), Event::Message(of_new_epoch(8))];
    assert_eq!(events, [vec![Event::Gap(trimmed)], message_events([5]), rest.to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn an_unreported_gap_is_delivered_as_unspecified() {
    let script = vec![
        StreamStep::Send(Frame::CaughtUp(caught_up(3))),
        messages([6]),
        StreamStep::Send(Frame::Gap(gap(9, 10, Reason::Trimmed))),
        StreamStep::Send(Frame::CaughtUp(caught_up(12))),
    ];
    let mut subscription = open(&FakeChannels::new([script]));

    let events = events(&mut subscription, 7).await;

    let unreported = |first, last| Event::Gap(gap(first, last, Reason::Unspecified));
    let expected = [
        Event::CaughtUp(caught_up(3)),
        unreported(4, 5),
        Event::Message(message(6)),
        unreported(7, 8),
        Event::Gap(gap(9, 10, Reason::Trimmed)),
        unreported(11, 12),
        Event::CaughtUp(caught_up(12)),
    ];
    assert_eq!(events, expected);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_cut_to_the_part_not_yet_delivered() {
    let script = vec![messages([1, 2, 3]), StreamStep::Send(Frame::Gap(gap(2, 6, Reason::Trimmed))), messages([7])];
    let mut subscription = open_at(&FakeChannels::new([script]), Start::after("c", position(0)));

    let events = events(&mut subscription, 5).await;

    assert_eq!(events[3..], [Event::Gap(gap(4, 6, Reason::Trimmed)), Event::Message(message(7))]);
}

#[tokio::test(start_paused = true)]
async fn another_epoch_without_a_reset_is_rejected() {
    let other = Message { epoch: "f".into(), ..message(4) };
    let unannounced = StreamStep::Send(Frame::Messages(Messages { messages: vec![other] }));
    let channels = FakeChannels::new([
        vec![StreamStep::Send(Frame::CaughtUp(caught_up(3))), unannounced],
        vec![StreamStep::Send(Frame::Reset(reset("f", 1)))],
    ]);
    let mut subscription = open(&channels);

    let events = events(&mut subscription, 2).await;

    assert_eq!(events[1], Event::Reset(reset("f", 1)));
    assert_eq!(channels.requests()[1].after(), 3, "resumed at the same position");
}

#[tokio::test(start_paused = true)]
async fn a_channel_without_an_epoch_accepts_any() {
    let nothing = CaughtUp { channel: "c".into(), ..Default::default() };
    let channels = FakeChannels::new([
        vec![StreamStep::Send(Frame::CaughtUp(nothing.clone())), StreamStep::Fail(down())],
        vec![messages([1, 2])],
    ]);
    let mut subscription = open(&channels);

    assert_eq!(events(&mut subscription, 3).await, [vec![Event::CaughtUp(nothing)], message_events([1, 2])].concat());
    let empty = Position::default();
    assert_eq!(channels.requests()[1].start(), Some(channel_start::Start::Position(empty)));
}
