//! Thundering herds: many concurrent readers of users that are not cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidings_devstack::Proxy;
use tidings_user::Config;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Code;

use crate::contest::{Contestant, RaceVerdict, at_most, races};
use crate::support::{SOON, TestEnv, UserInstance, eventually, into_result};

races! {
    a_herd_on_two_instances_reads_postgres_once,
    a_herd_reads_a_slow_postgres_at_most_thrice,
    flushall_costs_one_read_per_key_and_read_in_flight,
}

/// Number of concurrent reads.
const HERD: usize = 10_000;
/// Number of concurrent reads if Postgres is slow: few enough that the time of each step is the
/// delay, also on a busy machine.
const SMALL_HERD: usize = 1_000;
/// Number of cycling readers, and of the users they read.
const READERS: usize = 32;
const KEYS: usize = 20;

/// Inserts users that are in no cache.
async fn insert_users(env: &TestEnv, ids: usize) {
    env.execute(&format!(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
             SELECT 'user-' || number, '', 'first', '', '', '{{}}', 1 FROM generate_series(1, {ids}) AS number"
    ))
    .await;
}

/// Returns a proxy in front of Postgres and an environment behind it. A delay of each chunk lets a
/// herd gather during one read.
async fn with_proxy(env: &TestEnv) -> (Proxy, TestEnv) {
    let port = env.stack().postgres().port();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    let postgres_url = env.postgres_url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    assert_ne!(postgres_url, env.postgres_url);
    (proxy, TestEnv { postgres_url, ..env.clone() })
}

/// Raises limits and timeouts for a herd: a debug build on a busy machine is slow.
fn for_a_herd(config: &mut Config) {
    config.server.max_in_flight = 2 * u32::try_from(HERD).unwrap();
    config.server.max_streams = Some(u32::try_from(HERD).unwrap());
    config.redis.redis_timeout = Some(SOON.into());
    config.cache.user_fill_wait = SOON.into();
    config.cache.user_lease_ttl = SOON.into();
}

/// Ten thousand concurrent reads of a cold key over two instances are one read of Postgres.
async fn a_herd_on_two_instances_reads_postgres_once(contestant: Contestant) -> RaceVerdict {
    let scans = scans_of_a_herd(contestant, HERD, Duration::from_millis(5), for_a_herd).await;
    at_most("scans of Postgres", scans, 1)
}

/// Postgres takes longer than the fill wait: the instance with the lease reads once, the other one
/// at most twice, which is its limit of loads in flight.
async fn a_herd_reads_a_slow_postgres_at_most_thrice(contestant: Contestant) -> RaceVerdict {
    let short_wait = |config: &mut Config| {
        for_a_herd(config);
        config.cache.user_fill_wait = Duration::from_millis(600).into();
    };
    let scans = scans_of_a_herd(contestant, SMALL_HERD, Duration::from_millis(350), short_wait).await;
    at_most("scans of Postgres", scans, 3)
}

/// Returns the number of scans that a herd of `size` readers of one cold key causes.
async fn scans_of_a_herd(contestant: Contestant, size: usize, delay: Duration, tune: impl Fn(&mut Config)) -> i64 {
    let env = TestEnv::shared().await;
    insert_users(&env, 1).await;
    let before = env.account_scans().await;
    let (proxy, slow_env) = with_proxy(&env).await;
    let (here, there) = contestant.two_with(&slow_env, tune).await;
    proxy.delay(delay);

    let reads: JoinSet<_> = (0..size)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = tidings_proto::user::GetUserRequest { id: "user-1".to_owned(), ..Default::default() };
            async move { into_result(client.get_user(request).await) }
        })
        .collect();
    let mut unanswered = 0;
    for read in reads.join_all().await {
        match read {
            Ok(response) => assert_eq!(response.user.unwrap().display_name, "first"),
            // Calls end after five seconds, which may be too short for ten thousand on a busy
            // machine.
            Err(failure) if failure.code == Code::DeadlineExceeded => unanswered += 1,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(!contestant.is_tidings() || unanswered < size / 2, "{unanswered} of {size} reads got no answer");
    here.stop().await;
    there.stop().await;
    env.account_scans().await - before
}

/// Reads of Postgres after FLUSHALL under load: at most one for each key and each read in flight.
async fn flushall_costs_one_read_per_key_and_read_in_flight(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    insert_users(&env, KEYS).await;
    let before = env.account_scans().await;
    let (proxy, slow_env) = with_proxy(&env).await;
    let long_wait = |config: &mut Config| config.cache.user_fill_wait = Duration::from_secs(1).into();
    let (here, there) = contestant.two_with(&slow_env, long_wait).await;
    proxy.delay(Duration::from_millis(5));

    let readers = CyclingReaders::start([&here, &there]);
    readers.wait_for_full_cycle().await;
    redis::cmd("FLUSHALL").exec(&mut env.redis()).unwrap();
    readers.wait_for_full_cycle().await;
    readers.stop().await;
    here.stop().await;
    there.stop().await;

    let scans = env.account_scans().await - before;
    let (first, again) = (KEYS + READERS, KEYS + READERS); // the cache was also cold at the start
    at_most("scans of Postgres", scans, i64::try_from(first + again).unwrap())
}

/// Readers that read all users in turn, repeatedly.
struct CyclingReaders {
    cycles: Arc<[AtomicUsize]>,
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl CyclingReaders {
    fn start(instances: [&UserInstance; 2]) -> Self {
        let cycles: Arc<[AtomicUsize]> = (0..READERS).map(|_| AtomicUsize::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let readers = (0..READERS).map(|number| {
            let mut client = instances[number % 2].client();
            let (cycles, stop) = (Arc::clone(&cycles), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    for key in 1..=KEYS {
                        let id = format!("user-{key}");
                        let request = tidings_proto::user::GetUserRequest { id, ..Default::default() };
                        into_result(client.get_user(request).await).unwrap();
                    }
                    cycles[number].fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self { readers: readers.collect(), cycles, stop }
    }

    /// Waits until each reader has started another cycle and finished it.
    async fn wait_for_full_cycle(&self) {
        let cycles = || self.cycles.iter().map(|cycles| cycles.load(Ordering::SeqCst));
        let before: Vec<usize> = cycles().collect();
        let all = async || cycles().zip(&before).all(|(now, before)| now > before + 1);
        eventually("each reader has finished a cycle", SOON, all).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for reader in self.readers {
            reader.await.unwrap();
        }
    }
}
