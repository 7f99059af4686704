//! The scripts against a model, with random schedules: whoever repeats, comes late, dies or is silent, at any logical time.

mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;
use redis::cmd;
use tidings_devstack::testing;
use tidings_lock::leases::{Acquire, Activate, Claim, Leases, Limits, Release};
use tidings_lock::model::{CallId, Epoch, InstanceId, LeaseId, LockName, RequestName, Token, Wish};
use tidings_redis::{Redis, Role};
use tokio::time::Instant;

use self::reference::Reference;
use crate::support::PATIENCE;
use crate::support::redis::Tampering;

/// Few enough that limits are met.
const LIMITS: Limits = Limits { queue: 3, ended: 2 };

/// One is the beginning of the other.
const NAMES: [&str; 2] = ["a", "a/b"];

/// Whoever acts is one of so many who came last, so that they meet each other.
const RECENT: usize = 6;

/// What happens next. Whoever is meant by an index is one of those who came before.
#[derive(Clone, Debug)]
enum Step {
    /// A new call, perhaps under a name that others have.
    Acquire {
        name: usize,
        instance: usize,
        seconds: u64,
        wait: u64,
        request: Option<usize>,
    },
    /// The same call again, because its first answer was lost, or late.
    AcquireAgain(Index),
    /// Some calls of an instance are put back into queues, because it takes their places for lost.
    PutBack(usize),
    Claim(Index),
    Cancel {
        which: Index,
        claimed: bool,
    },
    /// Ends, or renews, some hold that once was.
    Release(Index),
    Renew(Index),
    Sweep {
        instance: usize,
        limit: usize,
    },
    Reread(usize),
    /// Time passes, in ms.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = prop_oneof![1 => Just(None), 1 => (0..2_usize).prop_map(Some)];
    let wait = prop_oneof![1 => Just(0_u64), 3 => 1..9_000_u64];
    let pass = prop_oneof![4 => 1..400_i64, 3 => 400..1_600_i64, 2 => 1_600..5_000_i64, 1 => Just(601_000_i64)];
    let index = any::<Index>;
    let step = prop_oneof![
        8 => (0..NAMES.len(), 0..3_usize, prop_oneof![5 => Just(1_u64), 1 => Just(2)], wait, request).prop_map(|(name, instance, seconds, wait, request)| {
            Step::Acquire { name, instance, seconds, wait, request }
        }),
        1 => index().prop_map(Step::AcquireAgain),
        1 => (0..3_usize).prop_map(Step::PutBack),
        6 => index().prop_map(Step::Claim),
        3 => (index(), any::<bool>()).prop_map(|(which, claimed)| Step::Cancel { which, claimed }),
        4 => index().prop_map(Step::Release),
        2 => index().prop_map(Step::Renew),
        4 => (0..3_usize, prop_oneof![1 => Just(1_usize), 3 => Just(200)])
            .prop_map(|(instance, limit)| Step::Sweep { instance, limit }),
        3 => (0..3_usize).prop_map(Step::Reread),
        5 => pass.prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A call, as it was made.
#[derive(Clone)]
struct Caller {
    id: LeaseId,
    call: CallId,
    instance: usize,
    wish: Wish,
    /// When it was sent, by the clock of nobody.
    sent: Instant,
}

/// The last belief in a lock.
#[derive(Clone, Copy)]
struct Belief {
    token: Token,
    until: i64,
}

/// The real scripts, the model, and everybody who ever asked for something.
struct Scene<'a> {
    leases: &'a Leases,
    redis: &'a Tampering,
    epoch: Epoch,
    instances: [InstanceId; 3],
    callers: Vec<Caller>,
    holds: Vec<(LockName, LeaseId, Token)>,
    believed: BTreeMap<LockName, Belief>,
    reference: Reference,
}

impl<'a> Scene<'a> {
    async fn new(leases: &'a Leases, redis: &'a Tampering, epoch: Epoch) -> Self {
        let reign = leases.epoch().await.unwrap().reign;
        let quarantine = Duration::from_millis(700);
        assert_eq!(leases.activate(epoch, &reign, quarantine).await.unwrap(), Activate::Activated);
        assert_eq!(leases.activate(epoch, &reign, Duration::ZERO).await.unwrap(), Activate::Refused, "twice");
        Self {
            leases,
            redis,
            epoch,
            instances: [(); 3].map(|()| InstanceId::random()),
            callers: Vec::new(),
            holds: Vec::new(),
            believed: BTreeMap::new(),
            reference: Reference::new(epoch, LIMITS, quarantine),
        }
    }

    async fn take(&mut self, step: Step) -> TestCaseResult {
        // No time passes but what a step says: a jump is none.
        self.redis.set_meta("last", 0).await;
        match step {
            Step::Acquire { name, instance, seconds, wait, request } => {
                let caller = caller(NAMES[name], instance, seconds, wait, request);
                self.callers.push(caller.clone());
                self.acquire(&caller).await
            }
            Step::AcquireAgain(which) => match pick(&self.callers, which) {
                Some(caller) => self.acquire(&caller).await,
                None => Ok(()),
            },
            Step::PutBack(instance) => self.put_back(instance).await,
            Step::Claim(which) => match pick(&self.callers, which) {
                Some(caller) => self.claim(&caller).await,
                None => Ok(()),
            },
            Step::Cancel { which, claimed } => match pick(&self.callers, which) {
                Some(caller) => self.cancel(&caller, claimed).await,
                None => Ok(()),
            },
            Step::Release(which) => match pick(&self.holds, which) {
                Some((name, id, token)) => self.release(&name, &id, token).await,
                None => Ok(()),
            },
            Step::Renew(which) => match pick(&self.holds, which) {
                Some((name, id, token)) => self.renew(&name, &id, token).await,
                None => Ok(()),
            },
            Step::Sweep { instance, limit } => {
                let swept = self.leases.sweep(self.epoch, &self.instances[instance], limit).await.unwrap();
                let expected = self.reference.sweep(&self.instances[instance], limit);
                prop_assert_eq!((swept.more, swept.quarantine), expected);
                Ok(())
            }
            Step::Reread(instance) => self.reread(instance).await,
            Step::Pass(millis) => {
                self.redis.advance(Duration::from_millis(millis.try_into().unwrap())).await;
                self.reference.clock += millis;
                Ok(())
            }
        }?;
        self.compare().await
    }

    async fn acquire(&mut self, caller: &Caller) -> TestCaseResult {
        let Caller { id, call, instance, wish, sent } = caller;
        let instance = &self.instances[*instance];
        let outcome = self.leases.acquire(self.epoch, instance, (id, call), wish, *sent).await.unwrap();
        prop_assert_eq!(&outcome, &self.reference.acquire(instance, (id, call), wish, false));
        if let Acquire::Granted { id, token, lease, deduplicated } = outcome {
            self.believe(&wish.name, &id, token, lease, deduplicated)?;
        }
        Ok(())
    }

    async fn put_back(&mut self, instance: usize) -> TestCaseResult {
        let ours = self.callers.iter().filter(|caller| caller.instance == instance && caller.wish.until.is_some());
        for Caller { id, call, instance, wish, sent } in ours.cloned().collect::<Vec<_>>() {
            self.redis.set_meta("last", 0).await; // each is a script of its own
            let instance = self.instances[instance].clone();
            let wishes = std::iter::once((&id, &call, &wish));
            let outcome = self.leases.acquire_again(self.epoch, &instance, wishes, sent).await.unwrap().remove(0);
            prop_assert_eq!(&outcome, &self.reference.acquire(&instance, (&id, &call), &wish, true));
            if let Acquire::Granted { id, token, lease, deduplicated } = outcome {
                self.believe(&wish.name, &id, token, lease, deduplicated)?;
            }
        }
        Ok(())
    }

    async fn claim(&mut self, caller: &Caller) -> TestCaseResult {
        let id = self.reference.id_of(&caller.id, &caller.wish);
        let name = &caller.wish.name;
        let outcome = self.leases.claim(self.epoch, name, &id, &caller.call).await.unwrap();
        prop_assert_eq!(outcome, self.reference.claim(name, &id, &caller.call));
        if let Claim::Claimed { token, lease } = outcome {
            self.believe(name, &id, token, lease, false)?;
        }
        Ok(())
    }

    async fn cancel(&mut self, caller: &Caller, claimed: bool) -> TestCaseResult {
        let Caller { id, call, wish, .. } = caller;
        let request = wish.request.as_ref().map_or("", |request| &request.id);
        let held = self.reference.claimed_by(&self.reference.id_of(id, wish), wish, call);
        let outcome = self.leases.cancel(self.epoch, &wish.name, (id, call), request, claimed).await.unwrap();
        prop_assert_eq!(outcome, self.reference.cancel(&wish.name, (id, call), request, claimed));
        if held && claimed {
            self.believed.remove(&wish.name); // its caller never heard of it
        }
        Ok(())
    }

    async fn release(&mut self, name: &LockName, id: &LeaseId, token: Token) -> TestCaseResult {
        let seq = token.seq_in(self.epoch);
        let outcome = self.leases.release(self.epoch, name, id, seq).await.unwrap();
        prop_assert_eq!(outcome, self.reference.release(name, id, token));
        if outcome == Release::Released {
            let believed = self.believed.get_mut(name).unwrap();
            prop_assert_eq!(believed.token, token, "it ended another's hold");
            believed.until = self.reference.clock;
        }
        Ok(())
    }

    async fn renew(&mut self, name: &LockName, id: &LeaseId, token: Token) -> TestCaseResult {
        let outcome = self.leases.renew(self.epoch, name, id, token.seq_in(self.epoch)).await.unwrap();
        prop_assert_eq!(outcome, self.reference.renew(name, id, token));
        if let tidings_lock::leases::Renew::Renewed(lease) = outcome {
            self.believe(name, id, token, lease, true)?;
        }
        Ok(())
    }

    async fn reread(&mut self, instance: usize) -> TestCaseResult {
        let callers: Vec<_> = self.callers.iter().filter(|caller| caller.instance == instance).cloned().collect();
        let ids: Vec<_> = callers.iter().map(|caller| self.reference.id_of(&caller.id, &caller.wish)).collect();
        let places = || callers.iter().zip(&ids).map(|(caller, id)| (&caller.wish.name, id, &caller.call));
        let instance = &self.instances[instance];
        let found = self.leases.reread(self.epoch, instance, places()).await.unwrap();
        prop_assert_eq!(found, self.reference.reread(instance, places()));
        Ok(())
    }

    /// The laws: tokens of a lock grow in the order of its grants, and no two believe in it at a time.
    fn believe(
        &mut self,
        name: &LockName,
        id: &LeaseId,
        token: Token,
        lease: Duration,
        repeated: bool,
    ) -> TestCaseResult {
        let clock = self.reference.clock;
        let until = clock + i64::try_from(lease.as_millis()).unwrap();
        if let Some(last) = self.believed.get(name).copied().filter(|last| !repeated || last.token != token) {
            prop_assert!(token >= last.token, "{} after {}", token, last.token);
            prop_assert!(token == last.token || clock >= last.until, "{} while {} is believed in", token, last.token);
        }
        prop_assert!(self.reference.quarantine <= clock, "granted in a quarantine");
        self.believed.insert(name.clone(), Belief { token, until });
        self.holds.push((name.clone(), id.clone(), token));
        Ok(())
    }

    /// All that Redis keeps is what the model keeps.
    async fn compare(&self) -> TestCaseResult {
        self.redis.set_meta("last", 0).await;
        for name in NAMES {
            let name = LockName::new(name.to_owned());
            let view = self.leases.look(self.epoch, &name, 3).await.unwrap();
            prop_assert_eq!(view, self.reference.look(&name, 3));
        }
        let due: BTreeMap<String, i64> = self
            .redis
            .run::<Vec<(String, i64)>>(cmd("ZRANGE").arg(self.redis.key("due")).arg(0).arg(-1).arg("WITHSCORES"))
            .await
            .into_iter()
            .collect();
        prop_assert_eq!(due, self.reference.due());
        let sizes = [
            self.redis.size("queue").await,
            self.redis.size("requests").await,
            self.redis.size("ended").await,
            self.redis.size("instances").await,
        ];
        prop_assert_eq!(sizes, self.reference.sizes());
        Ok(())
    }
}

fn caller(name: &str, instance: usize, seconds: u64, wait: u64, request: Option<usize>) -> Caller {
    let sent = Instant::now();
    let fingerprint = [u8::try_from(seconds).unwrap(); 16];
    let wish = Wish {
        name: LockName::new(name.to_owned()),
        owner: format!("owner of {name}"),
        ttl: Duration::from_secs(seconds),
        // The fingerprint covers the name in the service; here each lock has its own requests.
        request: request.map(|number| RequestName { id: format!("{name}-{number}"), fingerprint }),
        arrived: sent,
        until: Some(wait).filter(|wait| *wait > 0).map(|wait| sent + Duration::from_millis(wait)),
    };
    Caller { id: LeaseId::random(), call: CallId::random(), instance, wish, sent }
}

fn pick<T: Clone>(from: &[T], which: Index) -> Option<T> {
    let recent = &from[from.len().saturating_sub(RECENT)..];
    (!recent.is_empty()).then(|| which.get(recent).clone())
}

#[test]
fn the_scripts_equal_the_model_whoever_repeats_dies_or_is_late() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (leases, redis) = runtime.block_on(async {
        let stack = testing::shared().await;
        let mut args = tidings_redis::Args::new(stack.redis().url().parse().unwrap());
        args.redis_prefix = testing::key_prefix();
        args.redis_timeout = Some(PATIENCE.into());
        let redis = Tampering::connect(stack.redis(), &args.redis_prefix).await;
        (Leases::new(Redis::open(&args, "lock", Role::State).unwrap(), LIMITS), redis)
    });

    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    let epochs = std::cell::Cell::new(0);
    proptest!(config, |(steps in steps())| {
        epochs.set(epochs.get() + 1);
        runtime.block_on(async {
            let mut scene = Scene::new(&leases, &redis, Epoch::new(epochs.get())).await;
            for step in steps {
                scene.take(step).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    });
}
