//! Many readers at once of what the cache does not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidings_devstack::Proxy;
use tidings_user::Config;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Code;

use crate::contest::{Contestant, Outcome, at_most, races};
use crate::support::{SOON, Users, World, eventually, told};

races! {
    ten_thousand_reads_of_a_cold_key_over_two_instances_are_one_look_into_postgres,
    ten_thousand_reads_of_a_cold_key_are_a_look_for_each_instance_if_postgres_takes_longer_than_they_wait,
    flushall_under_load_costs_at_most_a_look_for_each_key_and_for_each_read_in_flight,
}

/// Reads that come at once.
const HERD: usize = 10_000;
/// Readers of the load, and whom they read.
const READERS: usize = 32;
const KEYS: usize = 20;

/// Users that no cache knows.
async fn sow(world: &World, ids: usize) {
    world
        .execute(&format!(
            "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
             SELECT 'user-' || number, '', 'first', '', '', '{{}}', 1 FROM generate_series(1, {ids}) AS number"
        ))
        .await;
}

/// Every piece that is sent to Postgres, and every one that it answers, takes so long: that is what a herd gathers in.
async fn with_postgres_far_away(world: &World, delay: Duration) -> (Proxy, World) {
    let port = world.stack().postgres().port();
    let way = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    way.delay(delay);
    let postgres_url = world.postgres_url.replace(&format!(":{port}/"), &format!(":{}/", way.port()));
    assert_ne!(postgres_url, world.postgres_url);
    (way, World { postgres_url, ..world.clone() })
}

/// Everybody is let in, and everybody has patience: a debug build on a busy machine is slow.
fn for_a_herd(config: &mut Config) {
    config.server.max_in_flight = 2 * u32::try_from(HERD).unwrap();
    config.server.max_streams = u32::try_from(HERD).unwrap();
    config.redis.redis_timeout = Some(SOON.into());
    config.cache.user_fill_wait = SOON.into();
    config.cache.user_lease_ttl = SOON.into();
}

async fn ten_thousand_reads_of_a_cold_key_over_two_instances_are_one_look_into_postgres(
    contestant: Contestant,
) -> Outcome {
    let looks = looks_of_a_herd(contestant, Duration::from_millis(5), for_a_herd).await;
    at_most("looks into Postgres", looks, 1)
}

async fn ten_thousand_reads_of_a_cold_key_are_a_look_for_each_instance_if_postgres_takes_longer_than_they_wait(
    contestant: Contestant,
) -> Outcome {
    let hasty = |config: &mut Config| {
        for_a_herd(config);
        config.cache.user_fill_wait = Duration::from_millis(100).into();
    };
    let looks = looks_of_a_herd(contestant, Duration::from_millis(250), hasty).await;
    at_most("looks into Postgres", looks, 2)
}

/// How often Postgres is looked into when a herd wants one cold key.
async fn looks_of_a_herd(contestant: Contestant, delay: Duration, tune: impl Fn(&mut Config)) -> i64 {
    let world = World::shared().await;
    sow(&world, 1).await;
    let before = world.looks_at_accounts().await;
    let (_way, far) = with_postgres_far_away(&world, delay).await;
    let (here, there) = contestant.two_with(&far, tune).await;

    let reads: JoinSet<_> = (0..HERD)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = tidings_proto::user::GetUserRequest { id: "user-1".to_owned(), ..Default::default() };
            async move { told(client.get_user(request).await) }
        })
        .collect();
    let mut unanswered = 0;
    for read in reads.join_all().await {
        match read {
            Ok(response) => assert_eq!(response.user.unwrap().display_name, "first"),
            // The cap of a call: five seconds are not much for ten thousand on a busy machine.
            Err(failure) if failure.code == Code::DeadlineExceeded => unanswered += 1,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(!contestant.is_tidings() || unanswered < HERD / 2, "{unanswered} of {HERD} got no answer");
    here.stop().await;
    there.stop().await;
    world.looks_at_accounts().await - before
}

async fn flushall_under_load_costs_at_most_a_look_for_each_key_and_for_each_read_in_flight(
    contestant: Contestant,
) -> Outcome {
    let world = World::shared().await;
    sow(&world, KEYS).await;
    let before = world.looks_at_accounts().await;
    let (_way, far) = with_postgres_far_away(&world, Duration::from_millis(5)).await;
    let patient = |config: &mut Config| config.cache.user_fill_wait = Duration::from_secs(1).into();
    let (here, there) = contestant.two_with(&far, patient).await;

    let load = Load::start([&here, &there]);
    load.everybody_has_read_all().await;
    redis::cmd("FLUSHALL").exec(&mut world.redis()).unwrap();
    load.everybody_has_read_all().await;
    load.stop().await;
    here.stop().await;
    there.stop().await;

    let looks = world.looks_at_accounts().await - before;
    let (first, again) = (KEYS + READERS, KEYS + READERS); // the cache was cold at first, too
    at_most("looks into Postgres", looks, i64::try_from(first + again).unwrap())
}

/// Readers who read all users, one after the other, over and over.
struct Load {
    walks: Arc<[AtomicUsize]>,
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(instances: [&Users; 2]) -> Self {
        let walks: Arc<[AtomicUsize]> = (0..READERS).map(|_| AtomicUsize::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let readers = (0..READERS).map(|number| {
            let mut client = instances[number % 2].client();
            let (walks, stop) = (Arc::clone(&walks), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    for key in 1..=KEYS {
                        let id = format!("user-{key}");
                        let request = tidings_proto::user::GetUserRequest { id, ..Default::default() };
                        told(client.get_user(request).await).unwrap();
                    }
                    walks[number].fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self { readers: readers.collect(), walks, stop }
    }

    /// Waits until each reader has begun anew and read all users.
    async fn everybody_has_read_all(&self) {
        let walks = || self.walks.iter().map(|walks| walks.load(Ordering::SeqCst));
        let before: Vec<usize> = walks().collect();
        let all = async || walks().zip(&before).all(|(now, before)| now > before + 1);
        eventually("everybody has read all", SOON, all).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for reader in self.readers {
            reader.await.unwrap();
        }
    }
}
