//! What comes: each message once and in order, and what is missing in its place.

use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, Messages, channel_start};

use super::*;
use crate::fake::channels::{caught_up, gap, heartbeat, message, reset};

#[tokio::test(start_paused = true)]
async fn messages_come_once_and_in_order_and_what_comes_twice_is_dropped() {
    let script = vec![
        Step::Send(Frame::CaughtUp(caught_up(3))),
        messages([4, 5]),
        messages([4, 5, 6]),
        messages([6]),
        Step::Send(Frame::Gap(gap(2, 6, Reason::Trimmed))),
        messages([7]),
    ];
    let mut subscription = open(&Channels::new([script]));

    assert_eq!(subscription.next().await.unwrap(), Event::CaughtUp(caught_up(3)));
    assert_eq!(events(&mut subscription, 4).await, told([4, 5, 6, 7]));
}

#[tokio::test(start_paused = true)]
async fn what_was_received_but_not_yet_read_when_a_stream_broke_comes_again() {
    let contradiction = Message { epoch: "f".into(), ..message(2) };
    let frame = Step::Send(Frame::Messages(Messages { messages: vec![message(1), contradiction, message(3)] }));
    let channels = Channels::new([vec![frame], vec![messages([2, 3])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 3).await, told(1..4));
    assert_eq!(channels.asked()[1].after(), 1);
}

#[tokio::test(start_paused = true)]
async fn positions_are_those_of_what_was_returned_not_of_what_was_received() {
    let channels = Channels::new([vec![Step::Send(Frame::CaughtUp(caught_up(0))), messages([1, 2, 3])]]);
    let mut subscription = open(&channels);
    assert_eq!(subscription.positions().count(), 0, "none is known yet");

    for offset in 0..4 {
        subscription.next().await.unwrap();
        assert_eq!(subscription.positions().collect::<Vec<_>>(), [("c", &position(offset))]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_position_is_where_another_subscription_goes_on() {
    let channels = Channels::new([vec![messages([43])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(42)));

    assert_eq!(events(&mut subscription, 1).await, told([43]));
    assert_eq!(channels.asked()[0].after(), 42);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_has_seen_nothing_asks_again_for_what_was_asked() {
    let channels = Channels::new([vec![heartbeat(), Step::Fail(away())], vec![messages([8, 9])]]);
    let mut subscription = open_at(&channels, Start::last("c", 2));

    assert_eq!(events(&mut subscription, 2).await, told([8, 9]));
    assert_eq!(channels.asked()[0].start(), channels.asked()[1].start());
}

#[tokio::test(start_paused = true)]
async fn a_gap_and_a_reset_are_told_in_their_place() {
    let trimmed = gap(1, 4, Reason::Trimmed);
    let anew = |offset| Message { epoch: "f".into(), ..message(offset) };
    let script = vec![
        Step::Send(Frame::Gap(trimmed.clone())),
        messages([5]),
        Step::Send(Frame::Reset(reset("f", 9))),
        Step::Send(Frame::Messages(Messages { messages: vec![anew(7), anew(8)] })),
    ];
    let mut subscription = open_at(&Channels::new([script]), Start::after("c", position(0)));

    let events = events(&mut subscription, 5).await;

    let rest = [Event::Reset(reset("f", 9)), Event::Message(anew(7)), Event::Message(anew(8))];
    assert_eq!(events, [vec![Event::Gap(trimmed)], told([5]), rest.to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_hole_that_no_instance_told_of_is_a_gap_that_says_so() {
    let script = vec![
        Step::Send(Frame::CaughtUp(caught_up(3))),
        messages([6]),
        Step::Send(Frame::Gap(gap(9, 10, Reason::Trimmed))),
        Step::Send(Frame::CaughtUp(caught_up(12))),
    ];
    let mut subscription = open(&Channels::new([script]));

    let events = events(&mut subscription, 7).await;

    let untold = |first, last| Event::Gap(gap(first, last, Reason::Unspecified));
    let expected = [
        Event::CaughtUp(caught_up(3)),
        untold(4, 5),
        Event::Message(message(6)),
        untold(7, 8),
        Event::Gap(gap(9, 10, Reason::Trimmed)),
        untold(11, 12),
        Event::CaughtUp(caught_up(12)),
    ];
    assert_eq!(events, expected);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_was_partly_told_before_begins_where_we_are() {
    let script = vec![messages([1, 2, 3]), Step::Send(Frame::Gap(gap(2, 6, Reason::Trimmed))), messages([7])];
    let mut subscription = open_at(&Channels::new([script]), Start::after("c", position(0)));

    let events = events(&mut subscription, 5).await;

    assert_eq!(events[3..], [Event::Gap(gap(4, 6, Reason::Trimmed)), Event::Message(message(7))]);
}

#[tokio::test(start_paused = true)]
async fn another_epoch_without_a_reset_is_never_believed() {
    let other = Message { epoch: "f".into(), ..message(4) };
    let untold = Step::Send(Frame::Messages(Messages { messages: vec![other] }));
    let channels = Channels::new([
        vec![Step::Send(Frame::CaughtUp(caught_up(3))), untold],
        vec![Step::Send(Frame::Reset(reset("f", 1)))],
    ]);
    let mut subscription = open(&channels);

    let events = events(&mut subscription, 2).await;

    assert_eq!(events[1], Event::Reset(reset("f", 1)));
    assert_eq!(channels.asked()[1].after(), 3, "asked again from where we are");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_had_no_numbering_begins_with_any() {
    let nothing = CaughtUp { channel: "c".into(), ..Default::default() };
    let channels =
        Channels::new([vec![Step::Send(Frame::CaughtUp(nothing.clone())), Step::Fail(away())], vec![messages([1, 2])]]);
    let mut subscription = open(&channels);

    assert_eq!(events(&mut subscription, 3).await, [vec![Event::CaughtUp(nothing)], told([1, 2])].concat());
    let empty = Position::default();
    assert_eq!(channels.asked()[1].start(), Some(channel_start::Start::Position(empty)));
}
