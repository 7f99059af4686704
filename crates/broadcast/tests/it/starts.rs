//! Where a stream begins: latest, a position, the last so many.

use crate::support::client::{after, everything, last, latest};
use crate::support::{Broadcasts, eventually};

#[tokio::test]
async fn from_the_latest_on_nothing_published_before_is_delivered_and_everything_after() {
    let broadcasts = Broadcasts::start_two().await;
    let (epoch, _) = broadcasts.count("lobby", 1, 5).await;

    for round in 0..20 {
        let before = 5 + 2 * round;
        // The call is answered: what is published from here on is wanted, whether the stream has caught up or not.
        let mut ear = broadcasts.client(1).subscribe(latest("lobby")).await;
        broadcasts.count("lobby", before + 1, before + 2).await;
        assert_eq!(ear.caught_up().await, (epoch.clone(), before));
        assert_eq!(ear.offsets(2).await, [before + 1, before + 2]);
    }
}

#[tokio::test]
async fn what_follows_a_position_is_delivered_then_caught_up_then_what_is_live() {
    let broadcasts = Broadcasts::start_two().await;
    let (epoch, _) = broadcasts.count("lobby", 1, 5).await;

    for offset in 0..=5 {
        let mut ear = broadcasts.client(1).subscribe(after("lobby", &epoch, offset)).await;
        let count = usize::try_from(5 - offset).unwrap();
        assert_eq!(ear.offsets(count).await, (offset + 1..=5).collect::<Vec<_>>());
        assert_eq!(ear.caught_up().await, (epoch.clone(), 5));
    }
    let mut ear = broadcasts.subscribe(after("lobby", &epoch, 4)).await;
    assert_eq!(ear.offsets(1).await, [5]);
    ear.caught_up().await;
    broadcasts.say("lobby", "6").await;
    assert_eq!(ear.text().await, "6");
}

#[tokio::test]
async fn the_position_of_a_caught_up_is_one_to_resume_from() {
    let broadcasts = Broadcasts::start_two().await;
    let never_was = broadcasts.listen("hall").await;
    drop(never_was);
    let (epoch, head) = broadcasts.subscribe(latest("hall")).await.caught_up().await;
    assert_eq!((epoch.as_str(), head), ("", 0));
    broadcasts.count("hall", 1, 3).await;
    let mut ear = broadcasts.client(1).subscribe(after("hall", &epoch, head)).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);

    let (epoch, head) = broadcasts.subscribe(latest("hall")).await.caught_up().await;
    broadcasts.count("hall", 4, 5).await;
    let mut ear = broadcasts.client(1).subscribe(after("hall", &epoch, head)).await;
    assert_eq!(ear.offsets(2).await, [4, 5]);
}

#[tokio::test]
async fn everything_that_a_channel_without_an_epoch_ever_gets_follows_from_1() {
    let broadcasts = Broadcasts::start().await;
    let mut ear = broadcasts.subscribe(everything("lobby")).await;
    assert_eq!(ear.caught_up().await, (String::new(), 0));

    broadcasts.count("lobby", 1, 3).await;

    assert_eq!(ear.offsets(3).await, [1, 2, 3]);
}

#[tokio::test]
async fn the_last_so_many_that_are_kept_are_delivered_without_a_gap() {
    let broadcasts = Broadcasts::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let (epoch, _) = broadcasts.count("lobby", 1, 25).await;

    for (wanted, first) in [(1, 25), (3, 23), (10, 16), (11, 16), (1000, 16)] {
        let mut ear = broadcasts.subscribe(last("lobby", wanted)).await;
        let count = usize::try_from(26 - first).unwrap();
        assert_eq!(ear.offsets(count).await, (first..=25).collect::<Vec<_>>());
        assert_eq!(ear.caught_up().await, (epoch.clone(), 25));
    }
    let mut ear = broadcasts.subscribe(last("hall", 10)).await;
    assert_eq!(ear.caught_up().await, (String::new(), 0));
}

#[tokio::test]
async fn a_position_that_never_was_in_the_channel_is_told_and_the_oldest_kept_follows() {
    let broadcasts = Broadcasts::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;

    for (other, offset) in [("0123456789abcdef", 2), ("not ours", 0), (&epoch, 4), (&epoch, i64::MAX)] {
        let mut ear = broadcasts.subscribe(after("lobby", other, offset)).await;
        assert_eq!(ear.reset().await, (epoch.clone(), 3));
        assert_eq!(ear.offsets(3).await, [1, 2, 3]);
        assert_eq!(ear.caught_up().await, (epoch.clone(), 3));
    }
    broadcasts.count("lobby", 4, 25).await;
    let mut ear = broadcasts.subscribe(after("lobby", "not ours", 2)).await;
    assert_eq!(ear.reset().await, (epoch.clone(), 25));
    assert_eq!(ear.gap().await, (epoch.clone(), 1, 15));
    assert_eq!(ear.offsets(10).await, (16..=25).collect::<Vec<_>>());
    assert_eq!(ear.caught_up().await, (epoch, 25));

    let mut ear = broadcasts.subscribe(after("hall", "0123456789abcdef", 2)).await;
    assert_eq!(ear.reset().await, (String::new(), 0));
    assert_eq!(ear.caught_up().await, (String::new(), 0));
    broadcasts.say("hall", "first").await;
    assert_eq!(ear.text().await, "first");
}

#[tokio::test]
async fn two_hundred_and_fifty_six_channels_on_one_stream_each_get_theirs() {
    let broadcasts = Broadcasts::start_two().await;
    let name = |number: usize| format!("channel/{number}");
    let ear = broadcasts.client(1).try_subscribe((0..256).map(|number| latest(&name(number))).collect()).await.unwrap();
    let scribe = crate::support::scribe::Scribe::of(ear);

    for _ in 0..3 {
        let requests = (0..256).map(|number| crate::support::client::saying(&name(number), &name(number))).collect();
        broadcasts.batch(requests).await.unwrap();
    }

    for number in 0..256 {
        let all = async || scribe.account(&name(number)).told.len() == 4;
        eventually("each has a caught up and three messages", all).await;
        assert_eq!(scribe.account(&name(number)).position().1, 3);
    }
}

#[tokio::test]
async fn each_channel_of_a_stream_is_caught_up_once() {
    let broadcasts = Broadcasts::start().await;
    let (epoch, _) = broadcasts.count("a", 1, 300).await;
    let channels = vec![everything("a"), latest("b"), last("c", 5), after("d", &epoch, 7)];
    let scribe = crate::support::scribe::Scribe::of(broadcasts.try_subscribe(channels).await.unwrap());
    for channel in ["a", "b", "c", "d"] {
        broadcasts.say(channel, "live").await;
    }

    for (channel, end) in [("a", 301), ("b", 1), ("c", 1), ("d", 1)] {
        eventually("it is live", async || scribe.account(channel).position().1 == end).await;
        let told = scribe.account(channel).told;
        let caught_up = told.iter().filter(|told| matches!(told, crate::support::ledger::Told::CaughtUp { .. }));
        assert_eq!(caught_up.count(), 1, "{told:?}");
    }
}
