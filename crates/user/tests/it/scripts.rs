//! The scripts against Redis, step by step beside a model of them, under schedules that proptest makes.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use tidings_devstack::testing;
use tidings_proto::user as pb;
use tidings_redis::{Redis, Role};
use tidings_user::cache::{Cache, Fill, Filled, Leased, Lives, Token};
use tidings_user::model::{Profile, Record, User, UserId};
use tidings_user::wire;

use super::support::World;

const READERS: usize = 3;
const WRITERS: usize = 3;

/// What may happen next. Readers and writers do their steps in order; between any two, anything else may happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A reader asks for the lease, if it has nothing under way.
    Lease(usize),
    /// A reader that found an old value asks for it, if it has nothing under way.
    Renew(usize),
    /// A reader that was granted the lease reads Postgres.
    Read(usize),
    /// A reader that has read fills.
    Fill(usize),
    /// A writer commits a new version, a deletion now and then.
    Commit(usize, bool),
    /// A writer that has committed applies.
    Apply(usize),
    /// The relay applies what Postgres has now.
    Relay,
    /// Redis forgets the value.
    EvictValue,
    /// Redis forgets the lease.
    EvictLease,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..READERS).prop_map(Step::Lease),
        1 => (0..READERS).prop_map(Step::Renew),
        3 => (0..READERS).prop_map(Step::Read),
        3 => (0..READERS).prop_map(Step::Fill),
        2 => (0..WRITERS, prop::bool::weighted(0.2)).prop_map(|(writer, delete)| Step::Commit(writer, delete)),
        2 => (0..WRITERS).prop_map(Step::Apply),
        1 => Just(Step::Relay),
        1 => Just(Step::EvictValue),
        1 => Just(Step::EvictLease),
    ]
}

/// How far a reader is.
#[derive(Clone)]
enum Reader {
    Idle,
    Granted(Token),
    Read(Token, Record),
}

/// What Redis shall hold.
#[derive(Default)]
struct Model {
    value: Option<i64>,
    lease: Option<usize>,
}

/// One user, with Postgres as a variable and Redis as it is.
struct Schedule<'a> {
    world: &'a World,
    cache: &'a Cache,
    id: UserId,
    postgres: Record,
    readers: Vec<Reader>,
    writers: Vec<Option<Record>>,
    model: Model,
    /// The newest version that was ever applied.
    floor: i64,
}

impl Schedule<'_> {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Lease(reader) => self.lease(reader).await,
            Step::Renew(reader) => self.renew(reader).await,
            Step::Read(reader) => {
                if let Reader::Granted(token) = self.readers[reader] {
                    self.readers[reader] = Reader::Read(token, self.postgres.clone());
                }
            }
            Step::Fill(reader) => self.fill(reader).await,
            Step::Commit(writer, delete) => {
                self.postgres = record(&self.id, self.postgres.version() + 1, delete);
                self.writers[writer] = Some(self.postgres.clone());
            }
            Step::Apply(writer) => {
                if let Some(record) = self.writers[writer].take() {
                    self.apply(&record).await;
                }
            }
            Step::Relay => self.apply(&self.postgres.clone()).await,
            Step::EvictValue => {
                assert_eq!(self.world.evict("u", self.id.as_str()), self.model.value.take().is_some());
            }
            Step::EvictLease => {
                assert_eq!(self.world.evict("l", self.id.as_str()), self.model.lease.take().is_some());
            }
        }
    }

    async fn lease(&mut self, reader: usize) {
        if !matches!(self.readers[reader], Reader::Idle) {
            return;
        }
        match self.cache.lease(&self.id).await.unwrap() {
            Leased::Granted(token) => {
                assert_eq!((self.model.value, self.model.lease), (None, None));
                self.model.lease = Some(reader);
                self.readers[reader] = Reader::Granted(token);
            }
            Leased::Taken(_) => assert!(self.model.value.is_none() && self.model.lease.is_some()),
            Leased::Present(cached) => assert_eq!(Some(cached.record.version()), self.model.value),
            Leased::Unreadable => panic!("nobody writes what can not be read"),
        }
    }

    async fn renew(&mut self, reader: usize) {
        if !matches!(self.readers[reader], Reader::Idle) {
            return;
        }
        match self.cache.lease_many(std::slice::from_ref(&self.id), Fill::Old).await.unwrap()[..] {
            [Leased::Granted(token)] => {
                assert_eq!(self.model.lease, None);
                self.model.lease = Some(reader);
                self.readers[reader] = Reader::Granted(token);
            }
            [Leased::Taken(_)] => assert!(self.model.lease.is_some()),
            ref other => panic!("{other:?}"),
        }
    }

    async fn fill(&mut self, reader: usize) {
        let Reader::Read(token, record) = self.readers[reader].clone() else { return };
        self.readers[reader] = Reader::Idle;
        let expected = if self.model.lease == Some(reader) {
            self.model.lease = None;
            if self.model.value.is_some_and(|there| there > record.version()) {
                Filled::Newer
            } else {
                self.model.value = Some(record.version());
                Filled::Stored
            }
        } else {
            Filled::LeaseGone
        };
        assert_eq!(self.cache.fill(&self.id, token, &record).await.unwrap(), expected);
    }

    async fn apply(&mut self, record: &Record) {
        self.cache.apply(&self.id, record).await.unwrap();
        self.model.lease = None;
        self.model.value = self.model.value.map(|there| there.max(record.version()));
        self.floor = self.floor.max(record.version());
    }

    /// What must hold after every step: Redis holds what the model holds, and
    /// - what is cached was once committed, whole: never a mixture, never the future;
    /// - once a version was applied, nothing older is ever cached again: not by a fill that read before the write (I1,
    ///   I2), not by a late apply on an evicted key (I2, I3), whatever Redis forgot in between (I4).
    async fn check(&self) {
        let cached = self.cache.get(&self.id).await.unwrap().0.map(|cached| cached.record);
        assert_eq!(cached.as_ref().map(Record::version), self.model.value);
        if let Some(cached) = cached {
            assert!(cached.version() >= self.floor, "{} below {}", cached.version(), self.floor);
            assert!(cached.version() <= self.postgres.version());
            if let Record::Present(user) = &cached {
                let bio = pb::User::decode(user.bytes.clone()).unwrap().bio;
                assert_eq!(bio, format!("version {}", user.version));
            }
        }
    }
}

fn record(id: &UserId, version: i64, deleted: bool) -> Record {
    if deleted {
        return Record::Absent { version };
    }
    let profile = Profile { bio: format!("version {version}"), ..Profile::default() };
    let time = std::time::UNIX_EPOCH;
    let user = User { id: id.clone(), profile, version, create_time: time, update_time: time };
    Record::Present(wire::encoded(user))
}

async fn run(world: &World, cache: &Cache, steps: &[Step]) {
    let mut schedule = Schedule {
        world,
        cache,
        id: UserId::new(testing::key_prefix()),
        postgres: Record::Absent { version: 0 },
        readers: vec![Reader::Idle; READERS],
        writers: vec![None; WRITERS],
        model: Model::default(),
        floor: 0,
    };
    for step in steps {
        schedule.take(*step).await;
        schedule.check().await;
    }
    schedule.take(Step::Relay).await; // after it whatever is cached is what Postgres has
    schedule.check().await;
    let (cached, _) = cache.get(&schedule.id).await.unwrap();
    assert!(cached.is_none_or(|cached| cached.record == schedule.postgres));
}

#[test]
fn after_a_version_was_applied_nothing_older_is_ever_cached() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::shared());
    let minute = Duration::from_mins(1);
    let lives = Lives { present: minute, soft: minute, absent: minute, lease: minute };
    let cache = runtime.block_on(async {
        let mut args = tidings_redis::Args::new(world.redis_url.parse().unwrap());
        args.redis_prefix.clone_from(&world.prefix);
        args.redis_timeout = Some(minute.into());
        Cache::new(Redis::open(&args, "user", Role::Cache).unwrap(), lives)
    });
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });

    let schedules = prop::collection::vec(step(), 1..60);
    let outcome = runner.run(&schedules, |steps| {
        runtime.block_on(run(&world, &cache, &steps));
        Ok(())
    });

    outcome.unwrap();
}
