//! The scripts against a reference model under random schedules: retries, late calls, crashes and
//! silent instances at any logical time.

mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;
use redis::cmd;
use tidings_devstack::testing::{self, PATIENCE};
use tidings_lock::leases::{AcquireReply, ActivateReply, CancelScope, ClaimReply, Leases, LockLimits};
use tidings_lock::model::{
    AcquireRequest, CallId, FencingToken, InstanceId, LeaseId, LockEpoch, LockName, LockRelease, RequestKey,
};
use tidings_redis::{Redis, Role};
use tokio::time::Instant;

use self::reference::LockModel;
use crate::support::redis::LockRedis;

/// Limits small enough to be reached.
const LIMITS: LockLimits = LockLimits { waiters_per_lock: 3, ended_requests: 2 };

/// Lock names, one a prefix of the other.
const NAMES: [&str; 2] = ["a", "a/b"];

/// Number of recent calls or holds that a step picks from, so that steps affect each other.
const RECENT: usize = 6;

/// A step of a schedule. An index picks one of the recent calls or holds.
#[derive(Clone, Debug)]
enum ScheduleStep {
    /// A new call, perhaps with the request id of another call.
    Acquire {
        name: usize,
        instance: usize,
        seconds: u64,
        wait: u64,
        request: Option<usize>,
    },
    /// A retry of a call whose first reply was lost or late.
    RetryAcquire(Index),
    /// A requeue of all waiting calls of an instance.
    Requeue(usize),
    Claim(Index),
    Cancel {
        which: Index,
        scope: CancelScope,
    },
    /// A release of a present or past hold; `Renew` likewise.
    Release(Index),
    Renew(Index),
    Sweep {
        instance: usize,
        limit: usize,
    },
    Recheck(usize),
    /// Time that passes, in ms.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<ScheduleStep>> {
    let request = prop_oneof![1 => Just(None), 1 => (0..2_usize).prop_map(Some)];
    let wait = prop_oneof![1 => Just(0_u64), 3 => 1..9_000_u64];
    let pass = prop_oneof![4 => 1..400_i64, 3 => 400..1_600_i64, 2 => 1_600..5_000_i64, 1 => Just(601_000_i64)];
    let index = any::<Index>;
    let scope = prop_oneof![Just(CancelScope::Unclaimed), Just(CancelScope::All), Just(CancelScope::KeepPosition)];
    let step = prop_oneof![
        8 => (0..NAMES.len(), 0..3_usize, prop_oneof![5 => Just(1_u64), 1 => Just(2)], wait, request).prop_map(|(name, instance, seconds, wait, request)| {
            ScheduleStep::Acquire { name, instance, seconds, wait, request }
        }),
        1 => index().prop_map(ScheduleStep::RetryAcquire),
        1 => (0..3_usize).prop_map(ScheduleStep::Requeue),
        6 => index().prop_map(ScheduleStep::Claim),
        3 => (index(), scope).prop_map(|(which, scope)| ScheduleStep::Cancel { which, scope }),
        4 => index().prop_map(ScheduleStep::Release),
        2 => index().prop_map(ScheduleStep::Renew),
        4 => (0..3_usize, prop_oneof![1 => Just(1_usize), 3 => Just(200)])
            .prop_map(|(instance, limit)| ScheduleStep::Sweep { instance, limit }),
        3 => (0..3_usize).prop_map(ScheduleStep::Recheck),
        5 => pass.prop_map(ScheduleStep::Pass),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A call with everything that was sent for it.
#[derive(Clone)]
struct IssuedCall {
    id: LeaseId,
    call: CallId,
    instance: usize,
    request: AcquireRequest,
    /// Time of arrival and of every sending: no real time passes in between.
    sent: Instant,
}

/// Last grant of a lock, with its holder's deadline.
#[derive(Clone, Copy)]
struct LastGrant {
    token: FencingToken,
    until: i64,
}

/// Real scripts, reference model, and all calls and grants of one run.
struct LockModelRun<'a> {
    leases: &'a Leases,
    redis: &'a LockRedis,
    epoch: LockEpoch,
    instances: [InstanceId; 3],
    calls: Vec<IssuedCall>,
    holds: Vec<(LockName, LeaseId, FencingToken)>,
    last_grants: BTreeMap<LockName, LastGrant>,
    model: LockModel,
}

impl<'a> LockModelRun<'a> {
    async fn new(leases: &'a Leases, redis: &'a LockRedis, epoch: LockEpoch) -> Self {
        let incarnation = leases.epoch().await.unwrap().incarnation;
        let quarantine = Duration::from_millis(700);
        assert_eq!(leases.activate(epoch, &incarnation, quarantine).await.unwrap(), ActivateReply::Activated);
        assert_eq!(
            leases.activate(epoch, &incarnation, Duration::ZERO).await.unwrap(),
            ActivateReply::Refused,
            "twice"
        );
        Self {
            leases,
            redis,
            epoch,
            instances: [(); 3].map(|()| InstanceId::random()),
            calls: Vec::new(),
            holds: Vec::new(),
            last_grants: BTreeMap::new(),
            model: LockModel::new(epoch, LIMITS, quarantine),
        }
    }

    async fn apply(&mut self, step: ScheduleStep) -> TestCaseResult {
        // The logical clock advances by steps only: any difference to 0 counts as a jump.
        self.redis.set_meta("last", 0).await;
        match step {
            ScheduleStep::Acquire { name, instance, seconds, wait, request } => {
                let caller = caller(NAMES[name], instance, seconds, wait, request);
                self.calls.push(caller.clone());
                self.acquire(&caller).await
            }
            ScheduleStep::RetryAcquire(which) => match pick(&self.calls, which) {
                Some(caller) => self.acquire(&caller).await,
                None => Ok(()),
            },
            ScheduleStep::Requeue(instance) => self.requeue(instance).await,
            ScheduleStep::Claim(which) => match pick(&self.calls, which) {
                Some(caller) => self.claim(&caller).await,
                None => Ok(()),
            },
            ScheduleStep::Cancel { which, scope } => match pick(&self.calls, which) {
                Some(caller) => self.cancel(&caller, scope).await,
                None => Ok(()),
            },
            ScheduleStep::Release(which) => match pick(&self.holds, which) {
                Some((name, id, token)) => self.release(&name, &id, token).await,
                None => Ok(()),
            },
            ScheduleStep::Renew(which) => match pick(&self.holds, which) {
                Some((name, id, token)) => self.renew(&name, &id, token).await,
                None => Ok(()),
            },
            ScheduleStep::Sweep { instance, limit } => {
                let swept = self.leases.sweep(self.epoch, &self.instances[instance], limit).await.unwrap();
                let expected = self.model.sweep(&self.instances[instance], limit);
                prop_assert_eq!((swept.more, swept.quarantine), expected);
                Ok(())
            }
            ScheduleStep::Recheck(instance) => self.recheck(instance).await,
            ScheduleStep::Pass(millis) => {
                self.redis.advance(Duration::from_millis(millis.try_into().unwrap())).await;
                self.model.clock += millis;
                Ok(())
            }
        }?;
        self.compare().await
    }

    async fn acquire(&mut self, caller: &IssuedCall) -> TestCaseResult {
        let IssuedCall { id, call, instance, request, sent } = caller;
        let instance = &self.instances[*instance];
        let outcome = self.leases.acquire(self.epoch, instance, (id, call), request, *sent).await.unwrap();
        prop_assert_eq!(&outcome, &self.model.acquire(instance, (id, call), request, false));
        if let AcquireReply::Granted { id, token, lease, deduplicated } = outcome {
            self.record_grant(&request.name, &id, token, lease, deduplicated)?;
        }
        Ok(())
    }

    async fn requeue(&mut self, instance: usize) -> TestCaseResult {
        let ours =
            self.calls.iter().filter(|caller| caller.instance == instance && caller.request.wait_until.is_some());
        for IssuedCall { id, call, instance, request, sent } in ours.cloned().collect::<Vec<_>>() {
            self.redis.set_meta("last", 0).await; // each requeue is a script call of its own
            let instance = self.instances[instance].clone();
            let requests = std::iter::once((&id, &call, &request));
            let outcome = self.leases.requeue(self.epoch, &instance, requests, sent).await.unwrap().remove(0);
            prop_assert_eq!(&outcome, &self.model.acquire(&instance, (&id, &call), &request, true));
            if let AcquireReply::Granted { id, token, lease, deduplicated } = outcome {
                self.record_grant(&request.name, &id, token, lease, deduplicated)?;
            }
        }
        Ok(())
    }

    async fn claim(&mut self, caller: &IssuedCall) -> TestCaseResult {
        let id = self.model.id_of(&caller.id, &caller.request);
        let name = &caller.request.name;
        let outcome = self.leases.claim(self.epoch, name, &id, &caller.call).await.unwrap();
        prop_assert_eq!(outcome, self.model.claim(name, &id, &caller.call));
        if let ClaimReply::Claimed { token, lease } = outcome {
            self.record_grant(name, &id, token, lease, false)?;
        }
        Ok(())
    }

    async fn cancel(&mut self, caller: &IssuedCall, scope: CancelScope) -> TestCaseResult {
        let IssuedCall { id, call, request, .. } = caller;
        let request_id = request.key.as_ref().map_or("", |key| &key.id);
        let held = self.model.holds(&self.model.id_of(id, request), request, call);
        let outcome = self.leases.cancel(self.epoch, &request.name, (id, call), request_id, scope).await.unwrap();
        prop_assert_eq!(outcome, self.model.cancel(&request.name, (id, call), request_id, scope));
        if held && scope != CancelScope::Unclaimed {
            self.last_grants.remove(&request.name); // its caller never received the grant
        }
        Ok(())
    }

    async fn release(&mut self, name: &LockName, id: &LeaseId, token: FencingToken) -> TestCaseResult {
        let seq = token.seq_in(self.epoch);
        let outcome = self.leases.release(self.epoch, name, id, seq).await.unwrap();
        prop_assert_eq!(outcome, self.model.release(name, id, token));
        if outcome == LockRelease::Released {
            let last = self.last_grants.get_mut(name).unwrap();
            prop_assert_eq!(last.token, token, "released the hold of another call");
            last.until = self.model.clock;
        }
        Ok(())
    }

    async fn renew(&mut self, name: &LockName, id: &LeaseId, token: FencingToken) -> TestCaseResult {
        let outcome = self.leases.renew(self.epoch, name, id, token.seq_in(self.epoch)).await.unwrap();
        prop_assert_eq!(outcome, self.model.renew(name, id, token));
        if let tidings_lock::leases::RenewReply::Renewed(lease) = outcome {
            self.record_grant(name, id, token, lease, true)?;
        }
        Ok(())
    }

    async fn recheck(&mut self, instance: usize) -> TestCaseResult {
        let calls: Vec<_> = self.calls.iter().filter(|caller| caller.instance == instance).cloned().collect();
        let ids: Vec<_> = calls.iter().map(|caller| self.model.id_of(&caller.id, &caller.request)).collect();
        let waiters = || calls.iter().zip(&ids).map(|(caller, id)| (&caller.request.name, id, &caller.call));
        let instance = &self.instances[instance];
        let found = self.leases.recheck(self.epoch, instance, waiters()).await.unwrap();
        prop_assert_eq!(found, self.model.recheck(instance, waiters()));
        Ok(())
    }

    /// Asserts that the tokens of a lock grow in the order of its grants, and that no grant
    /// precedes the deadline of the holder before.
    fn record_grant(
        &mut self,
        name: &LockName,
        id: &LeaseId,
        token: FencingToken,
        lease: Duration,
        repeated: bool,
    ) -> TestCaseResult {
        let clock = self.model.clock;
        let until = clock + i64::try_from(lease.as_millis()).unwrap();
        if let Some(last) = self.last_grants.get(name).copied().filter(|last| !repeated || last.token != token) {
            prop_assert!(token >= last.token, "{} after {}", token, last.token);
            prop_assert!(
                token == last.token || clock >= last.until,
                "{} granted before the deadline of {}",
                token,
                last.token
            );
        }
        prop_assert!(self.model.quarantine <= clock, "granted during a quarantine");
        self.last_grants.insert(name.clone(), LastGrant { token, until });
        self.holds.push((name.clone(), id.clone(), token));
        Ok(())
    }

    /// Asserts that Redis and the model hold the same state.
    async fn compare(&self) -> TestCaseResult {
        self.redis.set_meta("last", 0).await;
        for name in NAMES {
            let name = LockName::new(name.to_owned());
            let view = self.leases.get(self.epoch, &name, 3).await.unwrap();
            prop_assert_eq!(view, self.model.get(&name, 3));
        }
        let due: BTreeMap<String, i64> = self
            .redis
            .run::<Vec<(String, i64)>>(cmd("ZRANGE").arg(self.redis.key("due")).arg(0).arg(-1).arg("WITHSCORES"))
            .await
            .into_iter()
            .collect();
        prop_assert_eq!(due, self.model.due());
        let sizes = [
            self.redis.size("queue").await,
            self.redis.size("requests").await,
            self.redis.size("ended").await,
            self.redis.size("instances").await,
        ];
        prop_assert_eq!(sizes, self.model.sizes());
        Ok(())
    }
}

fn caller(name: &str, instance: usize, seconds: u64, wait: u64, request: Option<usize>) -> IssuedCall {
    let sent = Instant::now();
    let fingerprint = [u8::try_from(seconds).unwrap(); 16];
    let request = AcquireRequest {
        name: LockName::new(name.to_owned()),
        owner: format!("owner of {name}"),
        ttl: Duration::from_secs(seconds),
        // In the service the fingerprint covers the name; here each lock has its own request ids.
        key: request.map(|number| RequestKey { id: format!("{name}-{number}"), fingerprint }),
        arrived: sent,
        wait_until: Some(wait).filter(|wait| *wait > 0).map(|wait| sent + Duration::from_millis(wait)),
    };
    IssuedCall { id: LeaseId::random(), call: CallId::random(), instance, request, sent }
}

fn pick<T: Clone>(from: &[T], which: Index) -> Option<T> {
    let recent = &from[from.len().saturating_sub(RECENT)..];
    (!recent.is_empty()).then(|| which.get(recent).clone())
}

/// With retries, late calls, crashes and silent instances.
#[test]
fn scripts_equal_the_model_under_random_schedules() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (leases, redis) = runtime.block_on(async {
        let stack = testing::shared().await;
        let mut args = tidings_redis::Args::new(stack.redis().url().parse().unwrap());
        args.redis_prefix = testing::key_prefix();
        args.redis_timeout = Some(PATIENCE.into());
        let redis = LockRedis::connect(stack.redis(), &args.redis_prefix).await;
        (Leases::new(Redis::open(&args, "lock", Role::State).unwrap(), LIMITS), redis)
    });

    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    let epochs = std::cell::Cell::new(0);
    proptest!(config, |(steps in steps())| {
        epochs.set(epochs.get() + 1);
        runtime.block_on(async {
            let mut run = LockModelRun::new(&leases, &redis, LockEpoch::new(epochs.get())).await;
            for step in steps {
                run.apply(step).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    });
}
