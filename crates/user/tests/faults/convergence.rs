//! Storms: readers, writers, deletions, evictions, FLUSHALL, applies that are lost or late, fills that are late, restarts, over
//! two instances, in random order. While one goes on, nobody is told what was never committed, or less than was asked for;
//! after it and one tick of the relay every layer equals Postgres.
//!
//! `TIDINGS_SEED` sets what is random but the timing, `TIDINGS_STORMS` how many there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_proto::user as pb;
use tidings_status::Failure;
use tidings_user::Config;
use tidings_user::config::CacheArgs;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tonic::Code;

use crate::contest::{Contestant, Outcome, Wrong, races, right, right_within};
use crate::support::{NEVER, SOON, Users, World, eventually};

races! {
    after_any_storm_and_one_relay_tick_every_layer_equals_postgres,
}

/// Users; not all of them are created, and some are deleted.
const USERS: usize = 8;
const READERS: u64 = 8;
const READS: usize = 150;
const WRITERS: u64 = 3;
const WRITES: usize = 40;
/// How long a copy in a process may be old after the relay has told all.
const PUSH: Duration = Duration::from_secs(1);

async fn after_any_storm_and_one_relay_tick_every_layer_equals_postgres(contestant: Contestant) -> Outcome {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let storms: u64 = std::env::var("TIDINGS_STORMS").map_or(3, |text| text.parse().unwrap());
    for number in 0..storms {
        let storm = Arc::new(Storm::gather(contestant).await);
        let rage = Arc::clone(&storm).rage(seed.wrapping_add(number << 32)).await;
        let calm = match rage {
            Ok(()) => storm.calm().await,
            wrong => wrong,
        };
        calm.map_err(|wrong| wrong.within(format_args!("storm {number} of TIDINGS_SEED={seed}")))?;
    }
    Ok(())
}

/// One storm, over a database of its own.
struct Storm {
    contestant: Contestant,
    world: World,
    instances: [Mutex<Arc<Users>>; 2],
    /// Of each user, the version that somebody was told by a write or a read: whoever asks for it must get it.
    known: [AtomicI64; USERS],
    calls: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

/// What a reader was told.
#[derive(Debug)]
struct Answer {
    user: usize,
    /// At least this version was asked for.
    floor: i64,
    /// Version and name, or that there is nobody.
    told: Option<(i64, String)>,
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
        Self {
            contestant,
            world,
            instances: [here, there].map(|users| Mutex::new(Arc::new(users))),
            known: Default::default(),
            calls: AtomicUsize::new(0),
            answers: Mutex::default(),
        }
    }

    /// Lets everybody loose, until readers and writers are done, and judges what they were told.
    async fn rage(self: Arc<Self>, seed: u64) -> Outcome {
        let random = |number| StdRng::seed_from_u64(seed.wrapping_add(number));
        let mut callers = JoinSet::new();
        for number in 0..READERS {
            callers.spawn(Arc::clone(&self).read_often(random(number)));
        }
        for number in READERS..READERS + WRITERS {
            callers.spawn(Arc::clone(&self).write_often(random(number)));
        }
        let chaos: JoinHandle<()> = tokio::spawn(Arc::clone(&self).spoil(random(READERS + WRITERS)));
        let judged: Vec<Outcome> = callers.join_all().await;
        chaos.abort();
        assert!(chaos.await.is_err_and(|end| end.is_cancelled()), "chaos has no end of its own");
        for point in [crate::BEFORE_FILL, crate::BEFORE_APPLY] {
            fail::remove(point);
        }
        judged.into_iter().collect::<Outcome>()?;
        self.judge_answers().await
    }

    fn any_instance(&self, random: &mut StdRng) -> Arc<Users> {
        Arc::clone(&self.instances[random.random_range(0..2)].lock().unwrap())
    }

    async fn read_often(self: Arc<Self>, mut random: StdRng) -> Outcome {
        for _ in 0..READS {
            let (users, user) = (self.any_instance(&mut random), random.random_range(0..USERS));
            let known = self.known[user].load(Ordering::SeqCst);
            match random.random_range(0..10) {
                0..5 => self.told(user, 0, users.get(&name(user)).await)?,
                5..8 => self.told(user, known, users.get_at_least(&name(user), known).await)?,
                8 => self.told(user, known, users.get_strong(&name(user)).await)?,
                _ => self.told_many(users.batch(&(0..USERS).map(name).collect::<Vec<_>>()).await),
            }
        }
        Ok(())
    }

    /// Notes what a reader was told who asked for `floor`.
    fn told(&self, user: usize, floor: i64, answer: Result<crate::support::Answer, Failure>) -> Outcome {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let told = match answer {
            Ok(read) => Some((read.version, read.user.display_name)),
            Err(failure) if failure.code == Code::NotFound => None,
            Err(failure) if no_answer(failure.code) => return Ok(()),
            Err(failure) => return Err(Wrong::new(format!("{} from {floor}: {failure}", name(user)))),
        };
        if let Some((version, _)) = &told {
            self.known[user].fetch_max(*version, Ordering::SeqCst);
        }
        self.answers.lock().unwrap().push(Answer { user, floor, told });
        Ok(())
    }

    fn told_many(&self, answer: Result<Vec<pb::BatchGetUsersResult>, Failure>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let Ok(results) = answer else { return };
        let answers = results.into_iter().enumerate().map(|(user, result)| {
            let told = result.user.map(|user| (user.version, user.display_name));
            Answer { user, floor: 0, told }
        });
        self.answers.lock().unwrap().extend(answers);
    }

    async fn write_often(self: Arc<Self>, mut random: StdRng) -> Outcome {
        for _ in 0..WRITES {
            let (users, user) = (self.any_instance(&mut random), random.random_range(0..USERS));
            let version = match random.random_range(0..100) {
                0..20 => users.create(&name(user)).await.map(|user| user.version),
                20..97 => users.rename(&name(user), &format!("{:x}", random.random::<u64>())).await.map(|u| u.version),
                _ => users.delete(&name(user)).await.map(|deleted| deleted.version),
            };
            match version {
                Ok(version) => drop(self.known[user].fetch_max(version, Ordering::SeqCst)),
                Err(failure) if [Code::NotFound, Code::AlreadyExists].contains(&failure.code) => {}
                Err(failure) => assert!(no_answer(failure.code), "{failure}"),
            }
        }
        Ok(())
    }

    /// What is done to the cache and to the instances meanwhile.
    async fn spoil(self: Arc<Self>, mut random: StdRng) {
        loop {
            sleep(Duration::from_millis(random.random_range(0..15))).await;
            let id = name(random.random_range(0..USERS));
            match random.random_range(0..100) {
                0..35 => drop(self.world.evict("u", &id)),
                35..55 => drop(self.world.evict("l", &id)),
                55..62 => redis::cmd("FLUSHALL").exec(&mut self.world.redis()).unwrap(),
                62..74 => fail::cfg(crate::BEFORE_APPLY, "1*panic->off").unwrap(),
                74..84 => fail::cfg(crate::BEFORE_APPLY, "1*sleep(30)->off").unwrap(),
                84..97 => fail::cfg(crate::BEFORE_FILL, "1*sleep(30)->off").unwrap(),
                _ => {
                    let next = match self.contestant {
                        Contestant::Tidings => self.world.serve_with(lasting).await,
                        Contestant::Naive => self.world.serve_naive_with(lasting).await,
                    };
                    *self.instances[random.random_range(0..2)].lock().unwrap() = Arc::new(next);
                }
            }
        }
    }

    /// Everything that was told was once committed, and was at least what was asked for.
    async fn judge_answers(&self) -> Outcome {
        let log = self.log().await;
        let (answers, calls) = (self.answers.lock().unwrap(), self.calls.load(Ordering::SeqCst));
        assert!(answers.len() > calls / 2, "only {} answers of {calls} calls", answers.len());
        for Answer { user, floor, told } in answers.iter() {
            let committed = |version: i64| log.get(&(name(*user), version));
            let well = match told {
                Some((version, said)) => version >= floor && committed(*version) == Some(&(said.clone(), false)),
                // Who asks for more than 0 knows of a user, who can only have been deleted.
                None => *floor == 0 || log.iter().any(|((id, _), (_, deleted))| *id == name(*user) && *deleted),
            };
            if !well {
                let of_user: Vec<_> = log.iter().filter(|((id, _), _)| *id == name(*user)).collect();
                return Err(Wrong::new(format!("{} from {floor}: told {told:?} of {of_user:?}", name(*user))));
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
    async fn calm(&self) -> Outcome {
        if self.contestant.is_tidings() {
            let outbox = "SELECT count(*) FROM cache_outbox";
            eventually("the relay has told all", SOON, async || self.world.count(outbox).await == 0).await;
            for instance in &self.instances {
                let users = Arc::clone(&instance.lock().unwrap());
                users.remembers().await;
            }
        }
        let log = self.log().await;
        for (user, id) in (0..USERS).map(name).enumerate() {
            let newest = log.iter().rfind(|((of, _), _)| *of == id);
            let version = newest.map_or(0, |((_, version), _)| *version);
            let present = newest.filter(|(_, (_, deleted))| !deleted).map(|((_, version), _)| *version);
            if self.contestant.is_tidings() {
                for cached in self.versions_in_redis(&id) {
                    right(&format!("{id} in Redis"), &cached, &version)?;
                }
            }
            for instance in &self.instances {
                let users = Arc::clone(&instance.lock().unwrap());
                // The first read may be answered by any layer, the second by the nearest.
                for _ in 0..2 {
                    right_within(PUSH, &users, &id, present).await?;
                }
                let batch = users.batch(&(0..USERS).map(name).collect::<Vec<_>>()).await.unwrap();
                right(&format!("{id} in a batch"), &batch[user].user.as_ref().map(|user| user.version), &present)?;
            }
        }
        Ok(())
    }

    /// The versions that Redis has under an id: they stand behind the kind, in eight bytes.
    fn versions_in_redis(&self, id: &str) -> Vec<i64> {
        let read =
            |key: &String| -> Option<Vec<u8>> { redis::cmd("GET").arg(key).query(&mut self.world.redis()).unwrap() };
        let values = self.world.keys("u", id).iter().filter_map(read).collect::<Vec<_>>();
        values.iter().map(|value| i64::from_be_bytes(value[1..9].try_into().unwrap())).collect()
    }
}

/// Instances remember, and nothing that is old goes only because it expires.
fn lasting(config: &mut Config) {
    config.cache.user_near_bytes = CacheArgs::default().user_near_bytes;
    config.cache.user_near_ttl = NEVER.into();
    config.cache.user_absent_ttl = NEVER.into();
}

fn name(user: usize) -> String {
    format!("user-{user}")
}

/// Whether a caller who got this code was told nothing: its instance ended, or a writer died.
fn no_answer(code: Code) -> bool {
    [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled].contains(&code)
}
