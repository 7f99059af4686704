//! Storms over two instances: reads, writes, deletions, evictions, FLUSHALL, lost and late applies,
//! late fills and restarts, in random order.
//!
//! During a storm every answer is a committed version, not below the requested one. After each
//! round of a storm and one tick of the relay, every layer equals Postgres.
//!
//! `TIDINGS_SEED` sets all randomness except the timing, `TIDINGS_STORMS` the number of storms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_proto::user as pb;
use tidings_status::Failure;
use tidings_user::Config;
use tidings_user::config::CacheArgs;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Code;

use crate::contest::{Contestant, RaceVerdict, WrongAnswer, check, check_within, races};
use crate::support::{FoundUser, NEVER, SOON, TestEnv, UserInstance, eventually};
use crate::{BEFORE_APPLY, BEFORE_FILL};

races! {
    after_a_storm_and_one_relay_tick_all_layers_equal_postgres,
}

/// Rounds of a storm: short, because only an error that outlives the last write of a user is
/// detected.
const ROUNDS: u64 = 20;
/// Users of a round. Not all of them are created, and some are deleted.
const USERS: usize = 3;
const READERS: u64 = 6;
const WRITERS: u64 = 3;
/// Writes of each writer in a round.
const WRITES: usize = 5;
/// Longest time for which a local cache may be outdated after the relay has applied everything.
const INVALIDATION_DELAY: Duration = Duration::from_secs(1);

async fn after_a_storm_and_one_relay_tick_all_layers_equal_postgres(contestant: Contestant) -> RaceVerdict {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let storms: u64 = std::env::var("TIDINGS_STORMS").map_or(1, |text| text.parse().unwrap());
    for number in 0..storms {
        let storm = Storm::start(contestant).await;
        for round in 0..ROUNDS {
            let seed_of_round = seed.wrapping_add((number * ROUNDS + round) << 16);
            let part = format_args!("round {round} of storm {number} of TIDINGS_SEED={seed}");
            storm.run_round(round, seed_of_round).await.map_err(|wrong| wrong.within(part))?;
        }
    }
    Ok(())
}

/// A storm over its own database.
struct Storm {
    contestant: Contestant,
    env: TestEnv,
    instances: Arc<[Mutex<Arc<UserInstance>>; 2]>,
}

/// A round of a storm, with its own users.
struct StormRound {
    number: u64,
    contestant: Contestant,
    env: TestEnv,
    instances: Arc<[Mutex<Arc<UserInstance>>; 2]>,
    /// Newest version received by any caller, by user: a read with this `min_version` must return
    /// it.
    known: [AtomicI64; USERS],
    calls: AtomicUsize,
    observed: Mutex<Vec<ObservedRead>>,
    /// True once the writers are done.
    over: AtomicBool,
}

/// A disturbance. Each round has a random subset, because one may hide the effect of another: an
/// eviction repairs most errors.
#[derive(Clone, Copy)]
enum Disturbance {
    Eviction,
    LostLease,
    Flush,
    SlowFill,
    LostApply,
    SlowApply,
    Restart,
}

const DISTURBANCES: [Disturbance; 7] = [
    Disturbance::Eviction,
    Disturbance::LostLease,
    Disturbance::Flush,
    Disturbance::SlowFill,
    Disturbance::LostApply,
    Disturbance::SlowApply,
    Disturbance::Restart,
];

/// The answer to one read.
#[derive(Debug)]
struct ObservedRead {
    user: usize,
    /// The requested `min_version`.
    floor: i64,
    /// Version and display name; `None` if the user was absent.
    answer: Option<(i64, String)>,
}

/// Display name of each committed version, and true for a tombstone, by user and version.
type CommitLog = BTreeMap<(String, i64), (String, bool)>;

/// Makes a trigger log every commit, independently of the response to its caller.
const LOG: &str = "
    CREATE TABLE commit_log (id text, version bigint, display_name text, deleted boolean, PRIMARY KEY (id, version));
    CREATE FUNCTION log_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO commit_log VALUES (NEW.id, NEW.version, NEW.display_name, NEW.delete_time IS NOT NULL);
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_commit AFTER INSERT OR UPDATE ON user_account FOR EACH ROW EXECUTE FUNCTION log_commit();
";

impl Storm {
    async fn start(contestant: Contestant) -> Self {
        let env = TestEnv::shared().await;
        env.execute(LOG).await;
        let (here, there) = contestant.two_with(&env, lasting).await;
        Self { contestant, env, instances: Arc::new([here, there].map(|users| Mutex::new(Arc::new(users)))) }
    }

    /// Runs a round, then checks the answers of its readers and the final state.
    async fn run_round(&self, number: u64, seed: u64) -> RaceVerdict {
        let round = Arc::new(StormRound {
            number,
            contestant: self.contestant,
            env: self.env.clone(),
            instances: Arc::clone(&self.instances),
            known: Default::default(),
            calls: AtomicUsize::new(0),
            observed: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let random = |caller| StdRng::seed_from_u64(seed.wrapping_add(caller));
        let readers: JoinSet<RaceVerdict> =
            (0..READERS).map(|reader| Arc::clone(&round).read(random(reader))).collect();
        let writers: JoinSet<()> =
            (READERS..READERS + WRITERS).map(|writer| Arc::clone(&round).write(random(writer))).collect();
        let disturbing = tokio::spawn(Arc::clone(&round).disturb(random(READERS + WRITERS)));
        writers.join_all().await;
        round.over.store(true, Ordering::SeqCst);
        disturbing.await.unwrap();
        for point in [BEFORE_FILL, BEFORE_APPLY] {
            fail::remove(point);
        }
        readers.join_all().await.into_iter().collect::<RaceVerdict>()?;
        let log = round.log().await;
        round.check_answers(&log)?;
        round.expect_postgres_everywhere(&log).await
    }
}

impl StormRound {
    fn any_instance(&self, random: &mut StdRng) -> Arc<UserInstance> {
        Arc::clone(&self.instances[random.random_range(0..2)].lock().unwrap())
    }

    /// Reads until the writers are done. Most reads are without `min_version`, which would repair
    /// the cache.
    async fn read(self: Arc<Self>, mut random: StdRng) -> RaceVerdict {
        while !self.over.load(Ordering::SeqCst) {
            let (users, user) = (self.any_instance(&mut random), random.random_range(0..USERS));
            let (id, known) = (self.name(user), self.known[user].load(Ordering::SeqCst));
            match random.random_range(0..100) {
                0..75 => self.record(user, 0, users.get(&id).await)?,
                75..85 => self.record(user, known, users.get_at_least(&id, known).await)?,
                85..90 => self.record(user, known, users.get_strong(&id).await)?,
                _ => self.record_batch(users.batch(&self.names()).await),
            }
        }
        Ok(())
    }

    /// Records the answer to a read with `min_version` `floor`.
    fn record(&self, user: usize, floor: i64, answer: Result<FoundUser, Failure>) -> RaceVerdict {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = match answer {
            Ok(read) => Some((read.version, read.user.display_name)),
            Err(failure) if failure.code == Code::NotFound => None,
            Err(failure) if is_no_answer(&failure) => return Ok(()),
            Err(failure) => return Err(WrongAnswer::new(format!("{} from {floor}: {failure}", self.name(user)))),
        };
        if let Some((version, _)) = &answer {
            self.known[user].fetch_max(*version, Ordering::SeqCst);
        }
        self.observed.lock().unwrap().push(ObservedRead { user, floor, answer });
        Ok(())
    }

    fn record_batch(&self, answer: Result<Vec<pb::BatchGetUsersResult>, Failure>) {
        self.calls.fetch_add(USERS, Ordering::SeqCst);
        let Ok(results) = answer else { return };
        let observed = results.into_iter().enumerate().map(|(user, result)| {
            let answer = result.user.map(|user| (user.version, user.display_name));
            ObservedRead { user, floor: 0, answer }
        });
        self.observed.lock().unwrap().extend(observed);
    }

    async fn write(self: Arc<Self>, mut random: StdRng) {
        for _ in 0..WRITES {
            let (users, user) = (self.any_instance(&mut random), random.random_range(0..USERS));
            let id = self.name(user);
            let version = match random.random_range(0..100) {
                0..30 => users.create(&id).await.map(|user| user.version),
                30..95 => users.rename(&id, &format!("{:x}", random.random::<u64>())).await.map(|user| user.version),
                _ => users.delete(&id).await.map(|deleted| deleted.version),
            };
            match version {
                Ok(version) => drop(self.known[user].fetch_max(version, Ordering::SeqCst)),
                Err(failure) if [Code::NotFound, Code::AlreadyExists].contains(&failure.code) => {}
                Err(failure) => assert!(is_no_answer(&failure), "{failure}"),
            }
            sleep(Duration::from_millis(random.random_range(0..20))).await;
        }
    }

    /// Disturbs the round at random until the writers are done.
    async fn disturb(self: Arc<Self>, mut random: StdRng) {
        let disturbances: Vec<Disturbance> = DISTURBANCES.into_iter().filter(|_| random.random_bool(0.5)).collect();
        while !self.over.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
            let id = self.name(random.random_range(0..USERS));
            let Some(disturbance) = disturbances.get(random.random_range(0..DISTURBANCES.len())) else { continue };
            match disturbance {
                Disturbance::Eviction => drop(self.env.evict("u", &id)),
                Disturbance::LostLease => drop(self.env.evict("l", &id)),
                Disturbance::Flush => redis::cmd("FLUSHALL").exec(&mut self.env.redis()).unwrap(),
                Disturbance::SlowFill => {
                    fail::cfg(BEFORE_FILL, "1*sleep(40)->off").unwrap();
                    self.env.evict("u", &id);
                }
                Disturbance::LostApply => fail::cfg(BEFORE_APPLY, "1*panic->off").unwrap(),
                Disturbance::SlowApply => fail::cfg(BEFORE_APPLY, "1*sleep(40)->off").unwrap(),
                Disturbance::Restart => self.restart(random.random_range(0..2)).await,
            }
        }
    }

    async fn restart(&self, index: usize) {
        let next = match self.contestant {
            Contestant::Tidings => self.env.serve_with(lasting).await,
            Contestant::Naive => self.env.serve_naive_with(lasting).await,
        };
        *self.instances[index].lock().unwrap() = Arc::new(next);
    }

    /// Checks that every answer was committed and is not below the requested version.
    fn check_answers(&self, log: &CommitLog) -> RaceVerdict {
        let (observed, calls) = (self.observed.lock().unwrap(), self.calls.load(Ordering::SeqCst));
        assert!(observed.len() > calls / 2, "only {} answers to {calls} calls", observed.len());
        for ObservedRead { user, floor, answer } in observed.iter() {
            let id = self.name(*user);
            let correct = match answer {
                Some((version, name)) => {
                    version >= floor && log.get(&(id.clone(), *version)) == Some(&(name.clone(), false))
                }
                // A caller with a floor has seen the user, so absence means a deletion.
                None => *floor == 0 || log.iter().any(|((of, _), (_, deleted))| *of == id && *deleted),
            };
            if !correct {
                let committed: Vec<_> = log.iter().filter(|((of, _), _)| *of == id).collect();
                return Err(WrongAnswer::new(format!(
                    "{id} from {floor}: got {answer:?}, committed were {committed:?}"
                )));
            }
        }
        Ok(())
    }

    async fn log(&self) -> CommitLog {
        let lines: Vec<(String, i64, String, bool)> =
            sqlx::query_as("SELECT id, version, display_name, deleted FROM commit_log")
                .fetch_all(&mut self.env.sql().await)
                .await
                .unwrap();
        lines.into_iter().map(|(id, version, name, deleted)| ((id, version), (name, deleted))).collect()
    }

    /// Waits for the relay, and compares every layer with Postgres.
    async fn expect_postgres_everywhere(&self, log: &CommitLog) -> RaceVerdict {
        if self.contestant.is_tidings() {
            let outbox = "SELECT count(*) FROM cache_outbox";
            eventually("the outbox is empty", SOON, async || self.env.count(outbox).await == 0).await;
        }
        for (user, id) in self.names().into_iter().enumerate() {
            let newest = log.iter().rfind(|((of, _), _)| *of == id);
            let version = newest.map_or(0, |((_, version), _)| *version);
            let present = newest.filter(|(_, (_, deleted))| !deleted).map(|((_, version), _)| *version);
            if self.contestant.is_tidings() {
                for cached in self.versions_in_redis(&id) {
                    check(&format!("{id} in Redis"), &cached, &version)?;
                }
            }
            for instance in &*self.instances {
                let users = Arc::clone(&instance.lock().unwrap());
                // Any layer may answer the first read; the local cache answers the second.
                for _ in 0..2 {
                    check_within(INVALIDATION_DELAY, &users, &id, present).await?;
                }
                let batch = users.batch(&self.names()).await.unwrap();
                check(&format!("{id} in a batch"), &batch[user].user.as_ref().map(|user| user.version), &present)?;
            }
        }
        Ok(())
    }

    /// Returns the cached versions of an id: eight bytes after the kind.
    fn versions_in_redis(&self, id: &str) -> Vec<i64> {
        let mut redis = self.env.redis();
        let keys = self.env.keys("u", id).into_iter();
        let values = keys.filter_map(|key| redis::cmd("GET").arg(key).query::<Option<Vec<u8>>>(&mut redis).unwrap());
        values.map(|value| i64::from_be_bytes(value[1..9].try_into().unwrap())).collect()
    }

    fn name(&self, user: usize) -> String {
        format!("user-{}-{user}", self.number)
    }

    fn names(&self) -> Vec<String> {
        (0..USERS).map(|user| self.name(user)).collect()
    }
}

/// Enables the local cache and long TTLs, so that no outdated entry merely expires.
fn lasting(config: &mut Config) {
    config.cache.user_local_cache_bytes = CacheArgs::default().user_local_cache_bytes;
    config.cache.user_local_cache_ttl = NEVER.into();
    config.cache.user_absent_ttl = NEVER.into();
}

/// Returns true if a call got no answer: its instance ended, or a writer died.
fn is_no_answer(failure: &Failure) -> bool {
    [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled].contains(&failure.code)
}
