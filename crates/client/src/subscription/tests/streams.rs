//! The streams it comes by: how they end, and where it goes on.

use tidings_status::Reply;
use tokio::time::sleep;
use tonic::Code;

use super::*;
use crate::fake::channels::{caught_up, goodbye, heartbeat};

fn overloaded() -> Status {
    let reply = Reply::new(Code::ResourceExhausted, "broadcast.tidings", "OVERLOADED", "too many streams");
    reply.retry_after(seconds(1)).into_status()
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
        a.freeze();
    } else {
        b.freeze();
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
async fn an_outage_that_is_over_is_forgotten() {
    let script = |offset| vec![messages([offset]), Step::Pause(seconds(3)), Step::Fail(away())];
    let mut subscription = open_at(&Channels::new((1..=30).map(script)), Start::after("c", position(0)));
    subscription = subscription.with_patience(seconds(10));

    assert_eq!(events(&mut subscription, 30).await, told(1..31));
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
async fn a_stream_is_opened_once_by_who_waits_a_little_at_a_time() {
    let channels = Channels::new([vec![Step::Late(seconds(1)), messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    while timeout(Duration::from_millis(10), subscription.next()).await.is_err() {
        assert!(begin.elapsed() < seconds(2));
    }

    assert_eq!(channels.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_accept_a_stream_is_left_for_another() {
    let channels = Channels::new([vec![Step::Late(seconds(3_600))], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    assert_eq!(events(&mut subscription, 1).await, told([1]));
    assert_eq!(begin.elapsed().as_secs(), 10);
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
