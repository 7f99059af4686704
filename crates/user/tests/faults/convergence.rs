//! Storms: readers, writers, deletions, evictions, FLUSHALL, applies that are lost or late, fills that are late, restarts, over
//! two instances, in random order. While one goes on, nobody is told what was never committed, or less than was asked for;
//! after each of its gusts and one tick of the relay every layer equals Postgres.
//!
//! `TIDINGS_SEED` sets what is random but the timing, `TIDINGS_STORMS` how many there are.

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

use crate::contest::{Contestant, Outcome, Wrong, races, right, right_within};
use crate::support::{Answer, NEVER, SOON, Users, World, eventually};
use crate::{BEFORE_APPLY, BEFORE_FILL};

races! {
    after_any_storm_and_one_relay_tick_every_layer_equals_postgres,
}

/// Gusts of a storm: short, because what is wrong after the last write of a user is seen, and what was wrong before it is not.
const GUSTS: u64 = 20;
/// Users of a gust. Not all of them are created, and some are deleted.
const USERS: usize = 3;
const READERS: u64 = 6;
const WRITERS: u64 = 3;
/// What each writer does in a gust.
const WRITES: usize = 5;
/// How long a copy in a process may be old after the relay has told all.
const PUSH: Duration = Duration::from_secs(1);

async fn after_any_storm_and_one_relay_tick_every_layer_equals_postgres(contestant: Contestant) -> Outcome {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let storms: u64 = std::env::var("TIDINGS_STORMS").map_or(1, |text| text.parse().unwrap());
    for number in 0..storms {
        let storm = Storm::gather(contestant).await;
        for gust in 0..GUSTS {
            let seed_of_gust = seed.wrapping_add((number * GUSTS + gust) << 16);
            let place = format_args!("gust {gust} of storm {number} of TIDINGS_SEED={seed}");
            storm.blow(gust, seed_of_gust).await.map_err(|wrong| wrong.within(place))?;
        }
    }
    Ok(())
}

/// One storm, over a database of its own.
struct Storm {
    contestant: Contestant,
    world: World,
    instances: Arc<[Mutex<Arc<Users>>; 2]>,
}

/// A part of a storm, with users of its own.
struct Gust {
    number: u64,
    contestant: Contestant,
    world: World,
    instances: Arc<[Mutex<Arc<Users>>; 2]>,
    /// Of each user, the newest version that anybody was told of: whoever asks for it must get it.
    known: [AtomicI64; USERS],
    calls: AtomicUsize,
    told: Mutex<Vec<Told>>,
    /// Whether the writers are done.
    over: AtomicBool,
}

/// What may go wrong. In a gust some of it does, because what one of them breaks another may hide: an eviction mends most of all.
#[derive(Clone, Copy)]
enum Spoil {
    Eviction,
    LostLease,
    Flush,
    SlowFill,
    LostApply,
    SlowApply,
    Restart,
}

const SPOILS: [Spoil; 7] = [
    Spoil::Eviction,
    Spoil::LostLease,
    Spoil::Flush,
    Spoil::SlowFill,
    Spoil::LostApply,
    Spoil::SlowApply,
    Spoil::Restart,
];

/// What a reader was told.
#[derive(Debug)]
struct Told {
    user: usize,
    /// At least this version was asked for.
    floor: i64,
    /// Version and name, or that there is nobody.
    answer: Option<(i64, String)>,
}

/// What was committed, and whether it is a tombstone, by user and version.
type Log = BTreeMap<(String, i64), (String, bool)>;

/// Every commit leaves a line, whoever made it and whatever its caller was told.
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
    async fn gather(contestant: Contestant) -> Self {
        let world = World::shared().await;
        world.execute(LOG).await;
        let (here, there) = contestant.two_with(&world, lasting).await;
        Self { contestant, world, instances: Arc::new([here, there].map(|users| Mutex::new(Arc::new(users)))) }
    }

    /// Lets a gust blow, and judges what readers were told, and what is left when it is over.
    async fn blow(&self, number: u64, seed: u64) -> Outcome {
        let gust = Arc::new(Gust {
            number,
            contestant: self.contestant,
            world: self.world.clone(),
            instances: Arc::clone(&self.instances),
            known: Default::default(),
            calls: AtomicUsize::new(0),
            told: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let random = |caller| StdRng::seed_from_u64(seed.wrapping_add(caller));
        let readers: JoinSet<Outcome> = (0..READERS).map(|reader| Arc::clone(&gust).read(random(reader))).collect();
        let writers: JoinSet<()> =
            (READERS..READERS + WRITERS).map(|writer| Arc::clone(&gust).write(random(writer))).collect();
        let chaos = tokio::spawn(Arc::clone(&gust).spoil(random(READERS + WRITERS)));
        writers.join_all().await;
        gust.over.store(true, Ordering::SeqCst);
        chaos.await.unwrap();
        for point in [BEFORE_FILL, BEFORE_APPLY] {
            fail::remove(point);
        }
        readers.join_all().await.into_iter().collect::<Outcome>()?;
        let log = gust.log().await;
        gust.judge(&log)?;
        gust.expect_postgres_everywhere(&log).await
    }
}

impl Gust {
    fn any_instance(&self, random: &mut StdRng) -> Arc<Users> {
        Arc::clone(&self.instances[random.random_range(0..2)].lock().unwrap())
    }

    /// Reads until the writers are done. Most reads are plain: others tell the cache what it did not know.
    async fn read(self: Arc<Self>, mut random: StdRng) -> Outcome {
        while !self.over.load(Ordering::SeqCst) {
            let (users, user) = (self.any_instance(&mut random), random.random_range(0..USERS));
            let (id, known) = (self.name(user), self.known[user].load(Ordering::SeqCst));
            match random.random_range(0..100) {
                0..75 => self.note(user, 0, users.get(&id).await)?,
                75..85 => self.note(user, known, users.get_at_least(&id, known).await)?,
                85..90 => self.note(user, known, users.get_strong(&id).await)?,
                _ => self.note_many(users.batch(&self.names()).await),
            }
        }
        Ok(())
    }

    /// Notes what a reader was told who asked for `floor`.
    fn note(&self, user: usize, floor: i64, answer: Result<Answer, Failure>) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = match answer {
            Ok(read) => Some((read.version, read.user.display_name)),
            Err(failure) if failure.code == Code::NotFound => None,
            Err(failure) if is_no_answer(&failure) => return Ok(()),
            Err(failure) => return Err(Wrong::new(format!("{} from {floor}: {failure}", self.name(user)))),
        };
        if let Some((version, _)) = &answer {
            self.known[user].fetch_max(*version, Ordering::SeqCst);
        }
        self.told.lock().unwrap().push(Told { user, floor, answer });
        Ok(())
    }

    fn note_many(&self, answer: Result<Vec<pb::BatchGetUsersResult>, Failure>) {
        self.calls.fetch_add(USERS, Ordering::SeqCst);
        let Ok(results) = answer else { return };
        let told = results.into_iter().enumerate().map(|(user, result)| {
            let answer = result.user.map(|user| (user.version, user.display_name));
            Told { user, floor: 0, answer }
        });
        self.told.lock().unwrap().extend(told);
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

    /// Spoils what it can until the writers are done.
    async fn spoil(self: Arc<Self>, mut random: StdRng) {
        let ways: Vec<Spoil> = SPOILS.into_iter().filter(|_| random.random_bool(0.5)).collect();
        while !self.over.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
            let id = self.name(random.random_range(0..USERS));
            let Some(way) = ways.get(random.random_range(0..SPOILS.len())) else { continue };
            match way {
                Spoil::Eviction => drop(self.world.evict("u", &id)),
                Spoil::LostLease => drop(self.world.evict("l", &id)),
                Spoil::Flush => redis::cmd("FLUSHALL").exec(&mut self.world.redis()).unwrap(),
                Spoil::SlowFill => {
                    fail::cfg(BEFORE_FILL, "1*sleep(40)->off").unwrap();
                    self.world.evict("u", &id);
                }
                Spoil::LostApply => fail::cfg(BEFORE_APPLY, "1*panic->off").unwrap(),
                Spoil::SlowApply => fail::cfg(BEFORE_APPLY, "1*sleep(40)->off").unwrap(),
                Spoil::Restart => self.restart(random.random_range(0..2)).await,
            }
        }
    }

    async fn restart(&self, place: usize) {
        let next = match self.contestant {
            Contestant::Tidings => self.world.serve_with(lasting).await,
            Contestant::Naive => self.world.serve_naive_with(lasting).await,
        };
        *self.instances[place].lock().unwrap() = Arc::new(next);
    }

    /// Everything that was told was once committed, and was at least what was asked for.
    fn judge(&self, log: &Log) -> Outcome {
        let (told, calls) = (self.told.lock().unwrap(), self.calls.load(Ordering::SeqCst));
        assert!(told.len() > calls / 2, "only {} answers of {calls} calls", told.len());
        for Told { user, floor, answer } in told.iter() {
            let id = self.name(*user);
            let well = match answer {
                Some((version, said)) => {
                    version >= floor && log.get(&(id.clone(), *version)) == Some(&(said.clone(), false))
                }
                // Who asks for more than 0 knows of a user, who can only have been deleted.
                None => *floor == 0 || log.iter().any(|((of, _), (_, deleted))| *of == id && *deleted),
            };
            if !well {
                let committed: Vec<_> = log.iter().filter(|((of, _), _)| *of == id).collect();
                return Err(Wrong::new(format!("{id} from {floor}: told {answer:?}, committed was {committed:?}")));
            }
        }
        Ok(())
    }

    async fn log(&self) -> Log {
        let lines: Vec<(String, i64, String, bool)> =
            sqlx::query_as("SELECT id, version, display_name, deleted FROM commit_log")
                .fetch_all(&mut self.world.sql().await)
                .await
                .unwrap();
        lines.into_iter().map(|(id, version, name, deleted)| ((id, version), (name, deleted))).collect()
    }

    /// Waits for the relay, and compares every layer with Postgres.
    async fn expect_postgres_everywhere(&self, log: &Log) -> Outcome {
        if self.contestant.is_tidings() {
            let outbox = "SELECT count(*) FROM cache_outbox";
            eventually("the relay has told all", SOON, async || self.world.count(outbox).await == 0).await;
        }
        for (user, id) in self.names().into_iter().enumerate() {
            let newest = log.iter().rfind(|((of, _), _)| *of == id);
            let version = newest.map_or(0, |((_, version), _)| *version);
            let present = newest.filter(|(_, (_, deleted))| !deleted).map(|((_, version), _)| *version);
            if self.contestant.is_tidings() {
                for cached in self.versions_in_redis(&id) {
                    right(&format!("{id} in Redis"), &cached, &version)?;
                }
            }
            for instance in &*self.instances {
                let users = Arc::clone(&instance.lock().unwrap());
                // The first read may be answered by any layer, the second by the nearest.
                for _ in 0..2 {
                    right_within(PUSH, &users, &id, present).await?;
                }
                let batch = users.batch(&self.names()).await.unwrap();
                right(&format!("{id} in a batch"), &batch[user].user.as_ref().map(|user| user.version), &present)?;
            }
        }
        Ok(())
    }

    /// The versions that Redis has under an id: they stand behind the kind, in eight bytes.
    fn versions_in_redis(&self, id: &str) -> Vec<i64> {
        let mut redis = self.world.redis();
        let keys = self.world.keys("u", id).into_iter();
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

/// Instances remember, and nothing that is old goes only because it expires.
fn lasting(config: &mut Config) {
    config.cache.user_near_bytes = CacheArgs::default().user_near_bytes;
    config.cache.user_near_ttl = NEVER.into();
    config.cache.user_absent_ttl = NEVER.into();
}

/// Whether a caller was told nothing: its instance ended, or a writer died.
fn is_no_answer(failure: &Failure) -> bool {
    [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled].contains(&failure.code)
}
