//! Streams: failures, goodbyes, silence, outages and cancellation.

use tidings_status::Reply;
use tokio::time::sleep;
use tonic::Code;

use super::*;
use crate::fake::channels::{caught_up, connection_goodbye, goodbye, heartbeat};

fn overloaded() -> Status {
    let reply = Reply::new(Code::ResourceExhausted, "broadcast.tidings", "OVERLOADED", "too many streams");
    reply.retry_after(seconds(1)).into_status()
}

/// It resumes after the last event that was delivered.
#[tokio::test(start_paused = true)]
async fn a_broken_stream_resumes_elsewhere() {
    let channels = FakeChannels::new([
        vec![StreamStep::Send(Frame::CaughtUp(caught_up(0))), messages([1, 2]), StreamStep::Fail(down())],
        vec![messages([3]), StreamStep::End],
        vec![messages([4])],
    ]);
    let mut subscription = open(&channels);

    assert_eq!(events(&mut subscription, 5).await[1..], message_events(1..5));

    let requests = channels.requests();
    assert_eq!(requests[0].start(), None);
    assert_eq!((requests[1].after(), requests[2].after()), (2, 3));
    assert!(requests.windows(2).all(|two| two[0].instance != two[1].instance), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_moves_the_stream_elsewhere_at_once() {
    let channels = FakeChannels::new([
        vec![StreamStep::Send(Frame::CaughtUp(caught_up(0))), messages([1]), goodbye(seconds(30))],
        vec![messages([2]), StreamStep::Fail(overloaded())],
        vec![messages([3])],
    ]);
    let mut subscription = open(&channels);
    events(&mut subscription, 2).await;
    let begin = Instant::now();

    assert_eq!(events(&mut subscription, 1).await, message_events([2]));
    assert_eq!(begin.elapsed(), Duration::ZERO);

    events(&mut subscription, 1).await;
    let requests = channels.requests();
    assert_ne!(requests[0].instance, requests[1].instance);
    assert_ne!(requests[0].instance, requests[2].instance, "its Goodbye demanded 30 s");
}

/// The instance goes on, so that nothing is to be waited for.
#[tokio::test(start_paused = true)]
async fn a_stream_returns_at_once_when_only_its_connection_ends() {
    let channels = FakeChannels::new([vec![messages([1]), connection_goodbye()], vec![messages([2])]]);
    let mut subscription = open(&channels);
    let begin = Instant::now();

    assert_eq!(events(&mut subscription, 2).await, message_events([1, 2]));

    assert_eq!(begin.elapsed(), Duration::ZERO);
    let requests = channels.requests();
    assert_eq!((requests[0].instance == requests[1].instance, requests[1].after()), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_of_the_only_instance_waits_for_retry_after() {
    let channels = FakeChannels::new([vec![heartbeat(), goodbye(seconds(3))], vec![messages([1])]]);
    let mut subscription =
        Subscription::open(&endpoints([&channels.instance("a")]), vec![Start::after("c", position(0))]);
    let begin = Instant::now();

    events(&mut subscription, 1).await;

    assert!((3..=4).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn repeated_goodbyes_are_retried_with_backoff() {
    let channels = FakeChannels::new(std::iter::repeat_n(vec![goodbye(Duration::ZERO)], 1_000));
    let mut subscription = open(&channels);

    let _ = timeout(seconds(60), subscription.next()).await;

    assert!(channels.requests().len() < 50, "{}", channels.requests().len());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_frame_for_60_s_is_dead() {
    let channels = FakeChannels::new([vec![heartbeat(), StreamStep::Pause(Duration::MAX)], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    events(&mut subscription, 1).await;

    assert_eq!(begin.elapsed().as_secs(), 60);
    assert_ne!(channels.requests()[0].instance, channels.requests()[1].instance);
}

/// The 60 s also run while `next` is cancelled and called again every second.
#[tokio::test(start_paused = true)]
async fn silence_is_noticed_across_short_waits() {
    let channels = FakeChannels::new([vec![heartbeat(), StreamStep::Pause(Duration::MAX)], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    while timeout(seconds(1), subscription.next()).await.is_err() {
        assert!(begin.elapsed() < seconds(90));
    }

    assert!(begin.elapsed() >= seconds(60));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_quiet_stream_alive() {
    let quiet = [heartbeat(), StreamStep::Pause(seconds(25))].into_iter().cycle().take(200);
    let channels = FakeChannels::new([quiet.chain([messages([1])]).collect()]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 1).await, message_events([1]));
    assert_eq!(channels.requests().len(), 1);
}

/// Its socket stays open, but keep-alive pings get no reply.
#[tokio::test(start_paused = true)]
async fn a_frozen_connection_is_replaced() {
    let channels = FakeChannels::new([vec![messages([1]), StreamStep::Pause(Duration::MAX)], vec![messages([2])]]);
    let (a, b) = (channels.instance("a"), channels.instance("b"));
    let mut subscription = Subscription::open(&endpoints([&a, &b]), vec![Start::after("c", position(0))]);
    events(&mut subscription, 1).await;
    let begin = Instant::now();

    if channels.requests()[0].instance == "a" {
        a.freeze();
    } else {
        b.freeze();
    }

    assert_eq!(events(&mut subscription, 1).await, message_events([2]));
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_all_instances_is_waited_out() {
    let channels = FakeChannels::new([vec![messages([1])], vec![messages([2])]]);
    let (a, b) = (channels.instance("a"), channels.instance("b"));
    let mut subscription = Subscription::open(&endpoints([&a, &b]), vec![Start::after("c", position(0))]);
    events(&mut subscription, 1).await;
    a.kill();
    b.kill();

    let (event, ()) = tokio::join!(events(&mut subscription, 1), async {
        sleep(seconds(3_600)).await;
        b.restart();
    });

    assert_eq!(event, message_events([2]));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_works_again_after_it_gave_up() {
    let channels = FakeChannels::new([vec![messages([1])], vec![messages([2])]]);
    let a = channels.instance("a");
    let open = Subscription::open(&endpoints([&a]), vec![Start::after("c", position(0))]);
    let mut subscription = open.with_patience(seconds(20));
    events(&mut subscription, 1).await;
    sleep(seconds(50)).await; // without an outage the patience does not run
    a.kill();
    let begin = Instant::now();

    let error = subscription.next().await.unwrap_err();

    assert!(matches!(error, Error::GaveUp { method: "Subscribe", .. }), "{error}");
    assert!(error.to_string().contains("a:1: connection refused"), "{error}");
    assert!((17..=20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    a.restart();
    assert_eq!(events(&mut subscription, 1).await, message_events([2]));
}

#[tokio::test(start_paused = true)]
async fn patience_starts_over_with_each_outage() {
    let script = |offset| vec![messages([offset]), StreamStep::Pause(seconds(3)), StreamStep::Fail(down())];
    let mut subscription = open_at(&FakeChannels::new((1..=30).map(script)), Start::after("c", position(0)));
    subscription = subscription.with_patience(seconds(10));

    assert_eq!(events(&mut subscription, 30).await, message_events(1..31));
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_is_not_retried() {
    let status = Reply::new(Code::InvalidArgument, "broadcast.tidings", "INVALID_FIELDS", "no such name");
    let channels = FakeChannels::new([vec![StreamStep::Refuse(status.into_status())]]);

    let error = open(&channels).next().await.unwrap_err();

    assert_eq!(error.refused().unwrap().reason, "INVALID_FIELDS");
    assert_eq!(channels.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_instance_is_left_for_another() {
    let channels = FakeChannels::new([vec![StreamStep::Refuse(overloaded())], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));

    assert_eq!(events(&mut subscription, 1).await, message_events([1]));
    assert_ne!(channels.requests()[0].instance, channels.requests()[1].instance);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_once_across_short_waits() {
    let channels = FakeChannels::new([vec![StreamStep::AcceptAfter(seconds(1)), messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    while timeout(Duration::from_millis(10), subscription.next()).await.is_err() {
        assert!(begin.elapsed() < seconds(2));
    }

    assert_eq!(channels.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_not_accepted_within_10_s_moves_elsewhere() {
    let channels = FakeChannels::new([vec![StreamStep::AcceptAfter(seconds(3_600))], vec![messages([1])]]);
    let mut subscription = open_at(&channels, Start::after("c", position(0)));
    let begin = Instant::now();

    assert_eq!(events(&mut subscription, 1).await, message_events([1]));
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn no_event_is_lost_when_next_is_cancelled() {
    let script: Vec<_> =
        (1..=50).flat_map(|offset| [messages([offset]), StreamStep::Pause(Duration::from_millis(70))]).collect();
    let mut subscription = open_at(&FakeChannels::new([script]), Start::after("c", position(0)));
    let mut seen = Vec::new();

    while seen.len() < 50 {
        if let Ok(event) = timeout(Duration::from_millis(10), subscription.next()).await {
            seen.push(event.unwrap());
        }
    }

    assert_eq!(seen, message_events(1..51));
}
