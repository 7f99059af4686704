//! News that are lost, late, repeated and of long ago: nobody is told less than Postgres has, nor anything twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redis::Commands as _;
use tidings_proto::user as pb;

use super::support::{NEVER, SOON, Users, World, eventually, renaming};
use super::watcher::Watcher;

/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(3);
const WRITERS: usize = 8;
const USERS: usize = 40;

#[tokio::test]
async fn news_that_get_lost_are_found_by_the_next_comparison() {
    let world = World::shared().await;
    // Nobody relays, so nothing is told; and it is compared as often as the contract says.
    let users = world.serve_without_relay().await;
    let mut watcher = Watcher::start(&users, &["ada", "bob"]).await;

    users.create("ada").await.unwrap();
    let begun = Instant::now();
    watcher.until("ada", 1, false).await;

    assert!(begun.elapsed() < Duration::from_secs(6 + 3), "{:?}", begun.elapsed());
    assert_eq!(world.outbox("ada").await, 1, "nobody told of it");
}

#[tokio::test]
async fn changes_made_while_redis_is_dead_are_told_all_the_same() {
    let world = World::own().await;
    let (here, there) = (world.serve().await, world.serve().await);
    here.create("ada").await.unwrap();
    let mut watcher = Watcher::start(&here, &["ada", "bob"]).await;

    world.stack().redis().kill().await;
    there.rename("ada", "Ada").await.unwrap();
    there.create("bob").await.unwrap();
    watcher.until("ada", 2, false).await;
    watcher.until("bob", 1, false).await;

    world.stack().redis().start().await.unwrap();
    eventually("both listen again", SOON, async || world.ears() == 2).await;
    there.delete("bob").await.unwrap();
    watcher.until("bob", 2, true).await;
}

#[tokio::test]
async fn what_was_told_while_nobody_listened_is_found_as_soon_as_somebody_does() {
    let world = World::own().await;
    // Only the loss of the connection is a reason to compare.
    let never = |config: &mut tidings_user::Config| config.watches.user_compare_interval = NEVER.into();
    let users = world.serve_without_relay_with(never).await;
    users.create("ada").await.unwrap();
    eventually("it listens", SOON, async || world.ears() == 1).await;
    let mut watcher = Watcher::start(&users, &["ada"]).await;
    watcher.until_quiet(Duration::from_millis(300)).await;

    for version in 2..12 {
        users.rename("ada", &format!("name {version}")).await.unwrap(); // which nobody tells
        let killed: usize =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query(&mut world.redis()).unwrap();
        assert_eq!(killed, 1);
        watcher.until("ada", version, false).await;
        eventually("it listens again", SOON, async || world.ears() == 1).await;
    }
}

#[tokio::test]
async fn flushall_loses_no_news() {
    let world = World::own().await;
    let (here, there) = (world.serve().await, world.serve().await);
    here.create("ada").await.unwrap();
    let mut watcher = Watcher::start(&here, &["ada"]).await;

    for version in 2..12 {
        redis::cmd("FLUSHALL").exec(&mut world.redis()).unwrap();
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut world.redis()).unwrap();
        there.rename("ada", &format!("name {version}")).await.unwrap();
        watcher.until("ada", version, false).await;
    }
}

#[tokio::test]
async fn news_of_long_ago_repeated_ones_and_nonsense_change_nothing() {
    let world = World::shared().await;
    let users = world.serve_with(|config| config.watches.user_compare_interval = NEVER.into()).await;
    eventually("it listens", SOON, async || world.ears() == 1).await;
    users.create("ada").await.unwrap();
    users.rename("ada", "Ada").await.unwrap();
    let mut watcher = Watcher::start(&users, &["ada"]).await;
    watcher.until("ada", 2, false).await;
    let mut redis = world.redis();
    let mut tell = |what: &[u8]| {
        let heard: usize = redis.publish(format!("{}:user:news", world.prefix), what).unwrap();
        assert_eq!(heard, 1);
    };
    let news = |id: &str, version| {
        let versions = vec![pb::UserVersion { id: id.to_owned(), version, absent: false }];
        pb::UserVersions { versions }.encode_to_vec()
    };

    for what in [&news("ada", 2)[..], &news("ada", 1), &news("ada", -7), &news("bob", 3), b"", b"\xff\xff"] {
        tell(what);
    }
    users.rename("ada", "Ada King").await.unwrap();
    watcher.until("ada", 3, false).await;

    assert_eq!(watcher.frames, 2, "the first, and the change");
}

/// Writes whatever comes to its mind to users that may be there or not.
async fn write(instances: [&Users; 2], mut random: StdRng, until: Instant) {
    while Instant::now() < until {
        let users = instances[random.random_range(0..2)];
        let id = format!("user-{}", random.random_range(0..USERS));
        // What is refused, because there is no such user, or one already, is no matter.
        match random.random_range(0..20) {
            0 => drop(users.delete(&id).await),
            1..6 => drop(users.create(&id).await),
            _ => drop(users.call_update(renaming(&id, "another")).await),
        }
    }
}

/// Watches a part of the users at one instance; now and then anew.
async fn follow(users: &Users, mut random: StdRng, until: Instant) -> Watcher {
    loop {
        let first = random.random_range(0..USERS);
        let ids: Vec<String> = (first..first + USERS / 2).map(|number| format!("user-{}", number % USERS)).collect();
        let mut watcher = Watcher::start(users, &ids).await;
        let patience = Duration::from_millis(random.random_range(100..1500));
        let end = until.min(Instant::now() + patience);
        while Instant::now() < end {
            watcher.frame_within(end - Instant::now()).await;
        }
        if Instant::now() >= until {
            return watcher;
        }
    }
}

/// Repeats to everybody what was told before, in no order, and cuts the connections on which it is heard.
async fn confuse(world: World, mut random: StdRng, until: Instant) {
    let mut redis = world.redis();
    while Instant::now() < until {
        let known: Vec<_> = world.versions().await.into_iter().collect();
        for _ in 0..20 {
            if known.is_empty() {
                break;
            }
            let (id, (version, _)) = &known[random.random_range(0..known.len())];
            // A user is absent only at its newest version: of an older one it is not said.
            let version = random.random_range(0..*version);
            let versions = vec![pb::UserVersion { id: id.clone(), version, absent: version == 0 }];
            let _: usize = redis
                .publish(format!("{}:user:news", world.prefix), pb::UserVersions { versions }.encode_to_vec())
                .unwrap();
        }
        if random.random_range(0..4) == 0 {
            let _: usize = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query(&mut redis).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(1..100))).await;
    }
}

#[expect(clippy::print_stderr, reason = "who sees it fail wants to see it again")]
fn say_seed(seed: u64) {
    eprintln!("TIDINGS_SEED={seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_no_version_goes_back_or_is_told_twice_and_the_last_is_told_in_the_end() {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    say_seed(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut seeded = || StdRng::seed_from_u64(random.random());
    let world = World::own().await;
    let tune = |config: &mut tidings_user::Config| {
        config.cache.user_relay_tick = Duration::from_millis(20).into();
        config.watches.user_compare_interval = Duration::from_millis(100).into();
    };
    let (here, there) = (world.serve_with(tune).await, world.serve_with(tune).await);
    let until = Instant::now() + STORM;

    let confusion = tokio::spawn(confuse(world.clone(), seeded(), until));
    let writers: Vec<_> = (0..WRITERS).map(|_| write([&here, &there], seeded(), until)).collect();
    let followers: Vec<_> = (0..6).map(|number| follow([&here, &there][number % 2], seeded(), until)).collect();
    let (_, watchers) =
        tokio::join!(futures_util::future::join_all(writers), futures_util::future::join_all(followers));
    confusion.await.unwrap();

    let truth = world.versions().await;
    assert!(truth.values().any(|(_, absent)| *absent) && truth.values().any(|(version, _)| *version > 5), "{truth:?}");
    for mut watcher in watchers {
        let ids: Vec<String> = watcher.known.keys().cloned().collect();
        for id in ids {
            let (version, absent) = truth.get(&id).copied().unwrap_or((0, true));
            watcher.until(&id, version, absent).await;
        }
        watcher.until_quiet(Duration::from_millis(300)).await;
        let expected: BTreeMap<_, _> =
            watcher.known.keys().map(|id| (id.clone(), truth.get(id).copied().unwrap_or((0, true)))).collect();
        assert_eq!(watcher.known, expected, "nothing is told that never was");
    }
}
