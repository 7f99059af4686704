//! The scripts of the tail against a model in plain Rust, under any schedule of writers, relays,
//! loaders and evictions.

mod reference;

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;
use tidings_devstack::testing::{self, PATIENCE};
use tidings_history::cache::{LoadOutcome, LoadToken, TailTtls, Tails};
use tidings_history::model::{Anchor, Body, ConversationId, Message, MessageState, UserId};
use tidings_redis::{Redis, Role};
use uuid::Uuid;

use self::reference::ReferenceTail;
use crate::support::redis::HistoryRedis;

/// One step of a schedule. An [`Index`] selects one of the existing writers, relays or loaders;
/// without any, the step does nothing.
#[derive(Clone, Debug)]
enum TailStep {
    /// A writer commits a number of messages of a size in bytes; its tail update is still to come.
    Commit(usize, usize),
    /// A writer updates the tail. If `repeated`, the reply is lost, so the writer will retry.
    Apply {
        which: Index,
        repeated: bool,
    },
    /// A writer crashes before its tail update.
    Lose(Index),
    /// A relay checks for all outbox rows whether the tail has their messages.
    Confirm,
    /// A relay repairs the rows that its check found missing, and deletes all its rows.
    Repair(Index),
    /// A reader misses the tail and requests the lease.
    Lease,
    /// A reader with a lease reads Postgres.
    Snapshot(Index),
    /// A reader loads the messages that it read at any earlier time.
    Load {
        which: Index,
        will_retry: bool,
    },
    /// Redis evicts a key.
    EvictTail,
    EvictLease,
    /// A client reads a page: anchor, limit, `min_seq`.
    Read(Anchor, usize, i64),
}

fn steps() -> impl Strategy<Value = Vec<TailStep>> {
    let size = prop_oneof![20 => Just(10_usize), 4 => Just(9_000), 1 => Just(17_000)];
    let anchor = prop_oneof![
        2 => Just(Anchor::Newest),
        1 => (1..400_i64).prop_map(Anchor::Before),
        1 => (0..400_i64).prop_map(Anchor::After),
        1 => Just(Anchor::Before(i64::MAX)),
    ];
    let step = prop_oneof![
        6 => (prop_oneof![5 => 1..4_usize, 1 => 50..100_usize], size)
            .prop_map(|(count, size)| TailStep::Commit(count, size)),
        6 => (any::<Index>(), prop::bool::weighted(0.2))
            .prop_map(|(which, repeated)| TailStep::Apply { which, repeated }),
        1 => any::<Index>().prop_map(TailStep::Lose),
        2 => Just(TailStep::Confirm),
        3 => any::<Index>().prop_map(TailStep::Repair),
        3 => Just(TailStep::Lease),
        4 => any::<Index>().prop_map(TailStep::Snapshot),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(which, will_retry)| TailStep::Load { which, will_retry }),
        1 => Just(TailStep::EvictTail),
        1 => Just(TailStep::EvictLease),
        5 => (anchor, 1..=200_usize, prop_oneof![3 => Just(0_i64), 1 => 1..400_i64])
            .prop_map(|(anchor, limit, min_seq)| TailStep::Read(anchor, limit, min_seq)),
    ];
    proptest::collection::vec(step, 1..70)
}

/// First and last seq of the messages of one transaction.
type CommittedRange = (i64, i64);

/// A reader with a lease, and the newest seq that it has read, if any.
struct Loader {
    token: LoadToken,
    /// Index among all leases, as in the model.
    lease: usize,
    read: Option<i64>,
}

/// The real tails, the model, and the writers, relays and loaders in flight.
struct TailScenario<'a> {
    tails: &'a Tails,
    redis: &'a HistoryRedis,
    id: ConversationId,
    committed: Vec<Message>,
    reference: ReferenceTail,
    writers: Vec<CommittedRange>,
    outbox: Vec<CommittedRange>,
    relays: Vec<Vec<(CommittedRange, bool)>>,
    loaders: Vec<Loader>,
    leases: usize,
}

impl<'a> TailScenario<'a> {
    fn new(tails: &'a Tails, redis: &'a HistoryRedis) -> Self {
        Self {
            tails,
            redis,
            id: ConversationId::new(Uuid::now_v7().to_string()),
            committed: Vec::new(),
            reference: ReferenceTail::default(),
            writers: Vec::new(),
            outbox: Vec::new(),
            relays: Vec::new(),
            loaders: Vec::new(),
            leases: 0,
        }
    }

    async fn run(&mut self, step: TailStep) -> TestCaseResult {
        match step {
            TailStep::Commit(count, size) => self.commit(count, size),
            TailStep::Apply { which, repeated } => {
                if let Some(range) = pick(&mut self.writers, which, repeated) {
                    self.apply(range).await;
                }
            }
            TailStep::Lose(which) => drop(pick(&mut self.writers, which, false)),
            TailStep::Confirm => self.confirm().await?,
            TailStep::Repair(which) => {
                if let Some(rows) = pick(&mut self.relays, which, false) {
                    self.repair(rows).await;
                }
            }
            TailStep::Lease => {
                let token = self.tails.lease(&self.id).await.unwrap();
                prop_assert_eq!(token.is_some(), self.reference.lease(self.leases));
                self.loaders.extend(token.map(|token| Loader { token, lease: self.leases, read: None }));
                self.leases += 1;
            }
            TailStep::Snapshot(which) => {
                let head = self.head();
                if !self.loaders.is_empty() {
                    which.get_mut(&mut self.loaders).read.get_or_insert(head);
                }
            }
            TailStep::Load { which, will_retry } => {
                let ready: Vec<usize> =
                    (0..self.loaders.len()).filter(|index| self.loaders[*index].read.is_some()).collect();
                if !ready.is_empty() {
                    self.load(*which.get(&ready), will_retry).await?;
                }
            }
            TailStep::EvictTail => {
                self.redis.evict(self.id.as_str()).await;
                self.reference.tail = None;
            }
            TailStep::EvictLease => {
                self.redis.run::<()>(redis::cmd("DEL").arg(self.redis.lease_key(self.id.as_str()))).await;
                self.reference.lease = None;
            }
            TailStep::Read(anchor, limit, min_seq) => self.read(anchor, limit, min_seq).await?,
        }
        prop_assert_eq!(self.redis.tail(self.id.as_str()).await, self.reference.seqs());
        Ok(())
    }

    fn head(&self) -> i64 {
        self.committed.len() as i64
    }

    fn slice(&self, (first, last): CommittedRange) -> &[Message] {
        &self.committed[first as usize - 1..last as usize]
    }

    fn commit(&mut self, count: usize, size: usize) {
        let range = (self.head() + 1, self.head() + count as i64);
        self.committed.extend((range.0..=range.1).map(|seq| message(&self.id, seq, size)));
        self.writers.push(range);
        self.outbox.push(range);
    }

    async fn apply(&mut self, range: CommittedRange) {
        let messages = self.slice(range).to_vec();
        self.tails.append(&self.id, &messages, None).await.unwrap();
        self.reference.append(&messages);
    }

    async fn confirm(&mut self) -> TestCaseResult {
        let last_seqs: Vec<_> = self.outbox.iter().map(|row| (self.id.clone(), row.1)).collect();
        let confirmed = self.tails.confirm(&last_seqs).await.unwrap();
        let expected: Vec<bool> = self.outbox.iter().map(|row| self.reference.confirm(row.1)).collect();
        prop_assert_eq!(&confirmed, &expected);
        self.relays.push(self.outbox.iter().copied().zip(confirmed).collect());
        Ok(())
    }

    async fn repair(&mut self, rows: Vec<(CommittedRange, bool)>) {
        for (range, _) in rows.iter().filter(|(_, confirmed)| !confirmed) {
            self.apply(*range).await;
        }
        self.outbox.retain(|row| !rows.iter().any(|(range, _)| range == row));
    }

    async fn load(&mut self, index: usize, will_retry: bool) -> TestCaseResult {
        let loader = &self.loaders[index];
        let last_seq = loader.read.unwrap();
        let read = self.slice(((last_seq - 199).max(1), last_seq)).to_vec();
        let outcome = self.tails.load(&self.id, loader.token, &read, last_seq, will_retry).await.unwrap();
        prop_assert_eq!(outcome, self.reference.load(loader.lease, &read, last_seq, will_retry));
        match outcome {
            // The loader reads the missing messages.
            LoadOutcome::Behind { .. } if will_retry => self.loaders[index].read = Some(self.head()),
            LoadOutcome::Behind { .. } | LoadOutcome::Done | LoadOutcome::LeaseExpired => {
                self.loaders.remove(index);
            }
        }
        Ok(())
    }

    /// Checks that a read returns a committed range at the requested anchor, within the limit.
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

    /// Checks that a tail is contiguous and reaches the newest message once all outbox rows are
    /// relayed.
    async fn relay_all(&mut self) -> TestCaseResult {
        self.confirm().await?;
        let rows = self.relays.pop().unwrap();
        self.repair(rows).await;
        prop_assert!(self.outbox.is_empty());
        let tail = self.redis.tail(self.id.as_str()).await;
        let slice = self.tails.read(&self.id, Anchor::Newest, 200, 0).await.unwrap();
        prop_assert_eq!(slice.is_some(), !tail.is_empty(), "a tail that cannot be read: {:?}", tail);
        if let Some(slice) = slice {
            prop_assert_eq!(slice.last_seq, self.head());
        }
        while let Some(index) = self.loaders.iter().position(|loader| loader.read.is_some()) {
            self.load(index, true).await?;
            let tail = self.redis.tail(self.id.as_str()).await;
            prop_assert!(tail.last().is_none_or(|last| *last == self.head()), "a late loader stored {tail:?}");
        }
        Ok(())
    }
}

/// Removes the selected item, or clones it if `keep`.
fn pick<T: Clone>(from: &mut Vec<T>, which: Index, keep: bool) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let index = which.index(from.len());
    Some(if keep { from[index].clone() } else { from.remove(index) })
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
        state: MessageState::Active,
        edit_version: 1,
        change_seq: 0,
        create_time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

/// Creates tails under a key prefix of their own, and a direct connection to their Redis.
async fn tails() -> (Tails, HistoryRedis) {
    let stack = testing::shared().await;
    let mut args = tidings_redis::Args::new(stack.redis().url().parse().unwrap());
    args.redis_prefix = testing::key_prefix();
    args.redis_timeout = Some(PATIENCE.into());
    let ttls = TailTtls { tail: Duration::from_mins(10), lease: Duration::from_mins(10) };
    let redis = HistoryRedis::connect(stack.redis(), &args.redis_prefix, "").await;
    (Tails::new(Redis::open(&args, "history", Role::Cache).unwrap(), ttls), redis)
}

/// A message that overtakes its predecessor is stored at its position.
#[tokio::test]
async fn a_tail_with_a_gap_is_not_read_until_the_gap_is_filled() {
    let (tails, _) = tails().await;
    let id = ConversationId::new("lobby".to_owned());
    let message = |seq| message(&id, seq, 10);
    let token = tails.lease(&id).await.unwrap().unwrap();
    assert_eq!(tails.load(&id, token, &[1, 2, 3].map(message), 3, false).await.unwrap(), LoadOutcome::Done);

    tails.append(&id, &[message(5)], None).await.unwrap();
    assert!(tails.read(&id, Anchor::Newest, 200, 0).await.unwrap().is_none(), "4 is missing");
    assert_eq!(tails.confirm(&[(id.clone(), 4), (id.clone(), 5)]).await.unwrap(), [false, true]);

    tails.append(&id, &[message(4)], None).await.unwrap();
    let slice = tails.read(&id, Anchor::Newest, 200, 0).await.unwrap().unwrap();
    let seqs: Vec<_> = slice.messages.iter().map(|message| message.seq).collect();
    assert_eq!((seqs, slice.last_seq), (vec![1, 2, 3, 4, 5], 5));
}

/// Tail updates are reordered, repeated and lost; loads are late; keys are evicted.
#[test]
fn a_tail_equals_the_committed_range_under_any_schedule() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tails, redis) = runtime.block_on(tails());

    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut scenario = TailScenario::new(&tails, &redis);
            for step in steps {
                scenario.run(step).await?;
            }
            scenario.relay_all().await
        })?;
    });
}
