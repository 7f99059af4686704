//! The scripts of the tail against a model in plain Rust, under any schedule of writers, relays, loaders and losses.

mod reference;

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;
use tidings_devstack::testing;
use tidings_history::cache::{Lives, Loaded, Tails, Token};
use tidings_history::model::{Anchor, Body, ConversationId, Message, State, UserId};
use tidings_redis::{Redis, Role};
use uuid::Uuid;

use self::reference::Reference;
use crate::support::redis::Tampering;

/// What happens next. An [`Index`] chooses among what there is; if there is nothing, nothing happens.
#[derive(Clone, Debug)]
enum Step {
    /// So many messages of so many bytes are committed; their writer has yet to tell the tail.
    Commit(usize, usize),
    /// A writer tells the tail, and the answer gets lost if `repeated`: it will tell it again.
    Apply {
        which: Index,
        repeated: bool,
    },
    /// A writer dies.
    Lose(Index),
    /// A relay asks for all rows of the outbox.
    Ask,
    /// A relay repairs what was behind when it asked, and deletes its rows.
    Repair(Index),
    /// A reader finds no tail and asks for the lease.
    Lease,
    /// A reader with the lease reads Postgres.
    Snapshot(Index),
    /// A reader loads what it has read, however long ago.
    Load {
        which: Index,
        again: bool,
    },
    /// Redis forgets.
    EvictTail,
    EvictLease,
    /// Somebody reads.
    Read(Anchor, usize, i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![20 => Just(10_usize), 4 => Just(9_000), 1 => Just(17_000)];
    let anchor = prop_oneof![
        2 => Just(Anchor::Newest),
        1 => (1..400_i64).prop_map(Anchor::Before),
        1 => (0..400_i64).prop_map(Anchor::After),
        1 => Just(Anchor::Before(i64::MAX)),
    ];
    let step = prop_oneof![
        6 => (prop_oneof![5 => 1..4_usize, 1 => 50..100_usize], size).prop_map(|(count, size)| Step::Commit(count, size)),
        6 => (any::<Index>(), prop::bool::weighted(0.2)).prop_map(|(which, repeated)| Step::Apply { which, repeated }),
        1 => any::<Index>().prop_map(Step::Lose),
        2 => Just(Step::Ask),
        3 => any::<Index>().prop_map(Step::Repair),
        3 => Just(Step::Lease),
        4 => any::<Index>().prop_map(Step::Snapshot),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(which, again)| Step::Load { which, again }),
        1 => Just(Step::EvictTail),
        1 => Just(Step::EvictLease),
        5 => (anchor, 1..=200_usize, prop_oneof![3 => Just(0_i64), 1 => 1..400_i64])
            .prop_map(|(anchor, limit, min_seq)| Step::Read(anchor, limit, min_seq)),
    ];
    proptest::collection::vec(step, 1..70)
}

/// First and last number of what one transaction committed.
type Range = (i64, i64);

/// A reader with a lease, and what it has read: the newest messages up to a number.
struct Loader {
    token: Token,
    number: usize,
    read: Option<i64>,
}

/// The real tails, the model, and everybody who is in the middle of something.
struct Scene<'a> {
    tails: &'a Tails,
    redis: &'a Tampering,
    id: ConversationId,
    committed: Vec<Message>,
    reference: Reference,
    writers: Vec<Range>,
    outbox: Vec<Range>,
    relays: Vec<Vec<(Range, bool)>>,
    loaders: Vec<Loader>,
    leases: usize,
}

impl<'a> Scene<'a> {
    fn new(tails: &'a Tails, redis: &'a Tampering) -> Self {
        Self {
            tails,
            redis,
            id: ConversationId::new(Uuid::now_v7().to_string()),
            committed: Vec::new(),
            reference: Reference::default(),
            writers: Vec::new(),
            outbox: Vec::new(),
            relays: Vec::new(),
            loaders: Vec::new(),
            leases: 0,
        }
    }

    async fn take(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Commit(count, size) => self.commit(count, size),
            Step::Apply { which, repeated } => {
                if let Some(range) = pick(&mut self.writers, which, repeated) {
                    self.apply(range).await;
                }
            }
            Step::Lose(which) => drop(pick(&mut self.writers, which, false)),
            Step::Ask => self.ask().await?,
            Step::Repair(which) => {
                if let Some(rows) = pick(&mut self.relays, which, false) {
                    self.repair(rows).await;
                }
            }
            Step::Lease => {
                let token = self.tails.lease(&self.id).await.unwrap();
                prop_assert_eq!(token.is_some(), self.reference.lease(self.leases));
                self.loaders.extend(token.map(|token| Loader { token, number: self.leases, read: None }));
                self.leases += 1;
            }
            Step::Snapshot(which) => {
                let head = self.head();
                if !self.loaders.is_empty() {
                    which.get_mut(&mut self.loaders).read.get_or_insert(head);
                }
            }
            Step::Load { which, again } => {
                let ready: Vec<usize> =
                    (0..self.loaders.len()).filter(|place| self.loaders[*place].read.is_some()).collect();
                if !ready.is_empty() {
                    self.load(*which.get(&ready), again).await?;
                }
            }
            Step::EvictTail => {
                self.redis.evict(self.id.as_str()).await;
                self.reference.tail = None;
            }
            Step::EvictLease => {
                self.redis.run::<()>(redis::cmd("DEL").arg(self.redis.lease_key(self.id.as_str()))).await;
                self.reference.lease = None;
            }
            Step::Read(anchor, limit, min_seq) => self.read(anchor, limit, min_seq).await?,
        }
        prop_assert_eq!(self.redis.tail(self.id.as_str()).await, self.reference.numbers());
        Ok(())
    }

    fn head(&self) -> i64 {
        self.committed.len() as i64
    }

    fn slice(&self, (first, last): Range) -> &[Message] {
        &self.committed[first as usize - 1..last as usize]
    }

    fn commit(&mut self, count: usize, size: usize) {
        let range = (self.head() + 1, self.head() + count as i64);
        self.committed.extend((range.0..=range.1).map(|seq| message(&self.id, seq, size)));
        self.writers.push(range);
        self.outbox.push(range);
    }

    async fn apply(&mut self, range: Range) {
        let messages = self.slice(range).to_vec();
        self.tails.append(&self.id, &messages, None).await.unwrap();
        self.reference.append(&messages);
    }

    async fn ask(&mut self) -> TestCaseResult {
        let lasts: Vec<_> = self.outbox.iter().map(|row| (self.id.clone(), row.1)).collect();
        let reached = self.tails.reach(&lasts).await.unwrap();
        let expected: Vec<bool> = self.outbox.iter().map(|row| self.reference.reach(row.1)).collect();
        prop_assert_eq!(&reached, &expected);
        self.relays.push(self.outbox.iter().copied().zip(reached).collect());
        Ok(())
    }

    async fn repair(&mut self, rows: Vec<(Range, bool)>) {
        for (range, _) in rows.iter().filter(|(_, reached)| !reached) {
            self.apply(*range).await;
        }
        self.outbox.retain(|row| !rows.iter().any(|(range, _)| range == row));
    }

    async fn load(&mut self, place: usize, again: bool) -> TestCaseResult {
        let loader = &self.loaders[place];
        let last_seq = loader.read.unwrap();
        let read = self.slice(((last_seq - 199).max(1), last_seq)).to_vec();
        let outcome = self.tails.load(&self.id, loader.token, &read, last_seq, again).await.unwrap();
        prop_assert_eq!(outcome, self.reference.load(loader.number, &read, last_seq, again));
        match outcome {
            Loaded::Behind { .. } if again => self.loaders[place].read = Some(self.head()), // fetches what is missing
            Loaded::Behind { .. } | Loaded::Done | Loaded::LeaseGone => drop(self.loaders.remove(place)),
        }
        Ok(())
    }

    /// Whatever is read is a slice of what was committed, where it was asked for, as far as it was asked for.
    async fn read(&mut self, anchor: Anchor, limit: usize, min_seq: i64) -> TestCaseResult {
        let read = self.tails.read(&self.id, anchor, limit, min_seq).await.unwrap();
        let read = read.map(|slice| (slice.last_seq, slice.messages));
        prop_assert_eq!(&read, &self.reference.read(anchor, limit, min_seq));
        let Some((last_seq, messages)) = read else {
            return Ok(());
        };
        prop_assert!(last_seq >= min_seq && last_seq <= self.head());
        prop_assert!(messages.len() <= limit);
        if let Some(first) = messages.first() {
            let last = first.seq + messages.len() as i64 - 1;
            prop_assert_eq!(&messages[..], self.slice((first.seq, last)));
            match anchor {
                Anchor::Newest => prop_assert_eq!(last, last_seq),
                Anchor::Before(seq) => prop_assert_eq!(last, last_seq.min(seq - 1)),
                Anchor::After(seq) | Anchor::Around(seq) => prop_assert_eq!(first.seq, seq + 1),
            }
        }
        Ok(())
    }

    /// After all rows of the outbox are settled, a tail that there is reaches the newest message, and is whole.
    async fn settle(&mut self) -> TestCaseResult {
        self.ask().await?;
        let rows = self.relays.pop().unwrap();
        self.repair(rows).await;
        prop_assert!(self.outbox.is_empty());
        let tail = self.redis.tail(self.id.as_str()).await;
        let slice = self.tails.read(&self.id, Anchor::Newest, 200, 0).await.unwrap();
        prop_assert_eq!(slice.is_some(), !tail.is_empty(), "a tail that nobody can read: {:?}", tail);
        if let Some(slice) = slice {
            prop_assert_eq!(slice.last_seq, self.head());
        }
        while let Some(place) = self.loaders.iter().position(|loader| loader.read.is_some()) {
            self.load(place, true).await?;
            let tail = self.redis.tail(self.id.as_str()).await;
            prop_assert!(tail.last().is_none_or(|last| *last == self.head()), "a late loader brought {tail:?}");
        }
        Ok(())
    }
}

/// Takes one of several, or looks at it.
fn pick<T: Clone>(from: &mut Vec<T>, which: Index, keep: bool) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let place = which.index(from.len());
    Some(if keep { from[place].clone() } else { from.remove(place) })
}

fn message(id: &ConversationId, seq: i64, size: usize) -> Message {
    Message {
        conversation: id.clone(),
        seq,
        id: Uuid::now_v7(),
        sender: UserId::new("ada".to_owned()),
        client_message_id: seq.to_string(),
        body: Body::Text("x".repeat(size)),
        reply_to_seq: 0,
        attributes: [("line".to_owned(), seq.to_string())].into(),
        state: State::Active,
        edit_version: 1,
        change_seq: 0,
        create_time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

/// Tails that nobody else knows, and a way past them.
async fn tails() -> (Tails, Tampering) {
    let stack = testing::shared().await;
    let mut args = tidings_redis::Args::new(stack.redis().url().parse().unwrap());
    args.redis_prefix = testing::key_prefix();
    args.redis_timeout = Some(crate::support::PATIENCE.into());
    let lives = Lives { tail: Duration::from_mins(10), lease: Duration::from_mins(10) };
    let redis = Tampering::connect(stack.redis(), &args.redis_prefix).await;
    (Tails::new(Redis::open(&args, "history", Role::Cache).unwrap(), lives), redis)
}

#[tokio::test]
async fn a_message_that_overtakes_another_waits_in_its_place_and_the_tail_is_not_read_meanwhile() {
    let (tails, _) = tails().await;
    let id = ConversationId::new("lobby".to_owned());
    let message = |seq| message(&id, seq, 10);
    let token = tails.lease(&id).await.unwrap().unwrap();
    assert_eq!(tails.load(&id, token, &[1, 2, 3].map(message), 3, false).await.unwrap(), Loaded::Done);

    tails.append(&id, &[message(5)], None).await.unwrap();
    assert!(tails.read(&id, Anchor::Newest, 200, 0).await.unwrap().is_none(), "4 is missing");
    assert_eq!(tails.reach(&[(id.clone(), 4), (id.clone(), 5)]).await.unwrap(), [false, true]);

    tails.append(&id, &[message(4)], None).await.unwrap();
    let slice = tails.read(&id, Anchor::Newest, 200, 0).await.unwrap().unwrap();
    let numbers: Vec<_> = slice.messages.iter().map(|message| message.seq).collect();
    assert_eq!((numbers, slice.last_seq), (vec![1, 2, 3, 4, 5], 5));
}

#[test]
fn a_tail_under_reordered_repeated_and_lost_applies_equals_the_committed_slice() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tails, redis) = runtime.block_on(tails());

    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut scene = Scene::new(&tails, &redis);
            for step in steps {
                scene.take(step).await?;
            }
            scene.settle().await
        })?;
    });
}
