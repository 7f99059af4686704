//! A subscription over streams in memory that do what the test wants, in virtual time.

use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, Messages, channel_start};
use tidings_status::Reply;
use tokio::time::sleep;
use tonic::Code;

use super::*;
use crate::fake::channels::{Channels, Step, caught_up, gap, goodbye, heartbeat, message, messages, reset};
use crate::fake::endpoints;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn away() -> Status {
    Status::unavailable("the connection was cut")
}

fn overloaded() -> Status {
    let reply = Reply::new(Code::ResourceExhausted, "broadcast.tidings", "OVERLOADED", "too many streams");
    reply.retry_after(seconds(1)).into_status()
}

fn position(offset: i64) -> Position {
    Position { epoch: "e".into(), offset }
}

/// A subscription to `c` from its latest on, over two instances.
fn open(channels: &Channels) -> Subscription {
    open_at(channels, Start::latest("c"))
}

fn open_at(channels: &Channels, start: Start) -> Subscription {
    Subscription::open(&endpoints([&channels.instance("a"), &channels.instance("b")]), vec![start])
}

/// What comes next, so many times.
async fn events(subscription: &mut Subscription, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(subscription.next().await.unwrap());
    }
    events
}

fn told(offsets: impl IntoIterator<Item = i64>) -> Vec<Event> {
    offsets.into_iter().map(|offset| Event::Message(message(offset))).collect()
}

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
async fn a_stream_that_breaks_is_resumed_elsewhere_behind_what_was_seen() {
    let channels = Channels::new([
        vec![Step::Send(Frame::CaughtUp(caught_up(0))), messages([1, 2]), Step::Fail(away())],
        vec![messages([3]), Step::End],
        vec![messages([4])],
    ]);
    let mut subscription = open(&channels);

    assert_eq!(events(&mut subscription, 5).await[1..], told(1..5));

    let asked = channels.asked();
    assert_eq!(asked[0].start(), None);
    assert_eq!((asked[1].after(), asked[2].after()), (2, 3));
    assert!(asked.windows(2).all(|two| two[0].instance != two[1].instance), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_received_but_not_yet_read_when_a_stream_broke_comes_again() {
    let contradiction = vec![messages([1, 2]), messages([3]), Step::Send(Frame::CaughtUp(CaughtUp::default()))];
    let channels = Channels::new([contradiction, vec![messages([4])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 4).await, told(1..5));
    assert_eq!(channels.asked()[1].after(), 3);
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
    let other = Message { epoch: "f".into(), ..message(1) };
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

#[tokio::test(start_paused = true)]
async fn goodbye_means_elsewhere_and_at_once() {
    let channels = Channels::new([
        vec![Step::Send(Frame::CaughtUp(caught_up(0))), messages([1]), goodbye(seconds(30))],
        vec![messages([2]), Step::Fail(overloaded())],
        vec![messages([3])],
    ]);
    let mut subscription = open(&channels);
    events(&mut subscription, 2).await;
    let begin = Instant::now();

    assert_eq!(events(&mut subscription, 1).await, told([2]));
    assert_eq!(begin.elapsed(), Duration::ZERO);

    events(&mut subscription, 1).await;
    let asked = channels.asked();
    assert_ne!(asked[0].instance, asked[1].instance);
    assert_ne!(asked[0].instance, asked[2].instance, "it said not to come back yet");
}

#[tokio::test(start_paused = true)]
async fn goodbye_of_the_only_instance_means_when_it_is_back() {
    let channels = Channels::new([vec![heartbeat(), goodbye(seconds(3))], vec![messages([1])]]);
    let mut subscription =
        Subscription::open(&endpoints([&channels.instance("a")]), vec![Start::after("c", position(0))]);
    let begin = Instant::now();

    events(&mut subscription, 1).await;

    assert!((3..=4).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn instances_that_only_say_goodbye_are_asked_less_and_less() {
    let channels = Channels::new(std::iter::repeat_n(vec![goodbye(Duration::ZERO)], 1_000));
    let mut subscription = open(&channels);

    let _ = timeout(seconds(60), subscription.next()).await;

    assert!(channels.asked().len() < 50, "{}", channels.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_frame_for_60_s_is_dead() {
    let channels = Channels::new([vec![heartbeat(), Step::Pause(Duration::MAX)], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    events(&mut subscription, 1).await;

    assert_eq!(begin.elapsed().as_secs(), 60);
    assert_ne!(channels.asked()[0].instance, channels.asked()[1].instance);
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_by_who_waits_a_little_at_a_time() {
    let channels = Channels::new([vec![heartbeat(), Step::Pause(Duration::MAX)], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    while timeout(seconds(1), subscription.next()).await.is_err() {
        assert!(begin.elapsed() < seconds(90));
    }

    assert!(begin.elapsed() >= seconds(60));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_with_heartbeats_is_not_dead() {
    let quiet = [heartbeat(), Step::Pause(seconds(25))].into_iter().cycle().take(200);
    let channels = Channels::new([quiet.chain([messages([1])]).collect()]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 1).await, told([1]));
    assert_eq!(channels.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_dead_and_looks_alive_is_left() {
    let channels = Channels::new([vec![messages([1]), Step::Pause(Duration::MAX)], vec![messages([2])]]);
    let (a, b) = (channels.instance("a"), channels.instance("b"));
    let mut subscription = Subscription::open(&endpoints([&a, &b]), vec![Start::after("c", position(0))]);
    events(&mut subscription, 1).await;
    let begin = Instant::now();

    if channels.asked()[0].instance == "a" {
        a.freeze()
    } else {
        b.freeze()
    }

    assert_eq!(events(&mut subscription, 1).await, told([2]));
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_all_instances_is_waited_out() {
    let channels = Channels::new([vec![messages([1])], vec![messages([2])]]);
    let (a, b) = (channels.instance("a"), channels.instance("b"));
    let mut subscription = Subscription::open(&endpoints([&a, &b]), vec![Start::after("c", position(0))]);
    events(&mut subscription, 1).await;
    a.kill();
    b.kill();

    let (event, ()) = tokio::join!(events(&mut subscription, 1), async {
        sleep(seconds(3_600)).await;
        b.restart();
    });

    assert_eq!(event, told([2]));
}

#[tokio::test(start_paused = true)]
async fn the_patience_of_who_has_one_ends_and_it_can_go_on_nevertheless() {
    let channels = Channels::new([vec![messages([1])], vec![messages([2])]]);
    let a = channels.instance("a");
    let open = Subscription::open(&endpoints([&a]), vec![Start::after("c", position(0))]);
    let mut subscription = open.with_patience(seconds(20));
    events(&mut subscription, 1).await;
    sleep(seconds(50)).await; // without an outage there is nothing to bear
    a.kill();
    let begin = Instant::now();

    let error = subscription.next().await.unwrap_err();

    assert!(matches!(error, Error::GaveUp { method: "Subscribe", .. }), "{error}");
    assert!(error.to_string().contains("a:1: connection refused"), "{error}");
    assert!((17..=20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    a.restart();
    assert_eq!(events(&mut subscription, 1).await, told([2]));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_service_does_not_want_is_refused_at_once() {
    let status = Reply::new(Code::InvalidArgument, "broadcast.tidings", "INVALID_FIELDS", "no such name");
    let channels = Channels::new([vec![Step::Refuse(status.into_status())]]);

    let error = open(&channels).next().await.unwrap_err();

    assert_eq!(error.refused().unwrap().reason, "INVALID_FIELDS");
    assert_eq!(channels.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_has_too_many_streams_is_left_for_another() {
    let channels = Channels::new([vec![Step::Refuse(overloaded())], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 1).await, told([1]));
    assert_ne!(channels.asked()[0].instance, channels.asked()[1].instance);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_next_is_dropped_while_it_waits() {
    let script: Vec<_> =
        (1..=50).flat_map(|offset| [messages([offset]), Step::Pause(Duration::from_millis(70))]).collect();
    let mut subscription = open_at(&Channels::new([script]), Start::after("c", position(0)));
    let mut seen = Vec::new();

    while seen.len() < 50 {
        if let Ok(event) = timeout(Duration::from_millis(10), subscription.next()).await {
            seen.push(event.unwrap());
        }
    }

    assert_eq!(seen, told(1..51));
}
