//! Reference model of the scripts, without Redis.

mod steps;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidings_lock::leases::{
    AcquireReply, CancelReply, CancelScope, ClaimReply, LockLimits, LockView, RenewReply, WaiterStatus,
};
use tidings_lock::model::{
    AcquireRequest, CallId, FencingToken, InstanceId, LeaseId, LockEpoch, LockName, LockRelease, WaiterInfo,
};

const OFFER_TTL: i64 = 1500;
const POSITION_TTL: i64 = 2000;
const INSTANCE_TIMEOUT: i64 = 1500;
const REQUEST_TTL: i64 = 600_000;
const FORGET_AFTER: i64 = 300_000;

#[derive(Clone)]
struct ModelHold {
    lease: LeaseId,
    call: CallId,
    owner: String,
    seq: i64,
    ttl: i64,
    since: i64,
    ends: i64,
    offered: bool,
    request_id: Option<String>,
}

#[derive(Clone)]
struct ModelWaiter {
    id: LeaseId,
    call: CallId,
    instance: InstanceId,
    owner: String,
    ttl: i64,
    since: i64,
    ends: i64,
    missed: bool,
    absent: bool,
    request_id: Option<String>,
}

#[derive(Clone)]
struct ModelRequest {
    fingerprint: [u8; 16],
    id: LeaseId,
    seq: Option<i64>,
}

/// State of the partition.
pub(super) struct LockModel {
    pub(super) clock: i64,
    pub(super) quarantine: i64,
    epoch: LockEpoch,
    limits: LockLimits,
    seq: i64,
    holds: BTreeMap<LockName, ModelHold>,
    queues: BTreeMap<LockName, Vec<ModelWaiter>>,
    records: HashMap<String, ModelRequest>,
    ended: Vec<(i64, String)>,
    instances: HashMap<InstanceId, i64>,
}

fn millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap()
}

fn time(millis: i64) -> Duration {
    Duration::from_millis(millis.try_into().unwrap())
}

fn wait(request: &AcquireRequest) -> i64 {
    request.wait_until.map_or(0, |until| millis(until - request.arrived))
}

fn fingerprint(request: &AcquireRequest) -> [u8; 16] {
    request.key.as_ref().map_or([0; 16], |key| key.fingerprint)
}

fn grace(ttl: i64) -> i64 {
    1000 + ttl / 100
}

impl LockModel {
    pub(super) fn new(epoch: LockEpoch, limits: LockLimits, quarantine: Duration) -> Self {
        Self {
            clock: 0,
            quarantine: millis(quarantine),
            epoch,
            limits,
            seq: 0,
            holds: BTreeMap::new(),
            queues: BTreeMap::new(),
            records: HashMap::new(),
            ended: Vec::new(),
            instances: HashMap::new(),
        }
    }

    /// Returns the id of a call's hold or queue entry.
    pub(super) fn id_of(&self, id: &LeaseId, request: &AcquireRequest) -> LeaseId {
        let record = request.key.as_ref().and_then(|key| self.records.get(&key.id));
        record.map_or_else(|| id.clone(), |record| record.id.clone())
    }

    /// Returns true if the call holds the lock.
    pub(super) fn holds(&self, id: &LeaseId, request: &AcquireRequest, call: &CallId) -> bool {
        self.holds.get(&request.name).is_some_and(|hold| hold.lease == *id && hold.call == *call && !hold.offered)
    }

    pub(super) fn acquire(
        &mut self,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        request: &AcquireRequest,
        requeued: bool,
    ) -> AcquireReply {
        let (name, wait) = (&request.name, wait(request));
        let record = request.key.as_ref().and_then(|key| self.records.get(&key.id)).cloned();
        if record.as_ref().is_some_and(|record| record.fingerprint != fingerprint(request)) {
            return AcquireReply::Reused;
        }
        let id = self.id_of(id, request);
        self.end_expired_hold(name);
        let held_by = self.holds.get(name).filter(|hold| hold.lease == id).map(|hold| hold.call.clone());
        let queued_by = self.find(name, &id).map(|waiter| waiter.call.clone());
        if requeued && held_by.into_iter().chain(queued_by).any(|other| other != *call) {
            return AcquireReply::TakenOver;
        }
        if let Some(hold) = self.holds.get(name).filter(|hold| hold.lease == id && !hold.offered) {
            let deduplicated = hold.call != *call;
            let owner_call = if deduplicated { &CallId::new(String::new()) } else { call };
            return self.grant(name, owner_call, deduplicated);
        }
        let clock = self.clock;
        let queued = self.find(name, &id).map(|waiter| {
            waiter.call = call.clone();
            waiter.instance = instance.clone();
            waiter.missed = false;
            waiter.absent = false;
            waiter.ends = clock + wait + grace(wait);
        });
        if queued.is_some() {
            self.instances.insert(instance.clone(), clock);
        } else if let Some(seq) = record.as_ref().and_then(|record| record.seq) {
            return AcquireReply::LeaseOver(FencingToken::new(self.epoch, seq));
        } else if self.quarantine > clock {
            return AcquireReply::Quarantine(time(self.quarantine - clock));
        }

        if !self.holds.contains_key(name) {
            self.offer_next(name);
        }
        if self.holds.get(name).is_some_and(|hold| hold.lease == id) {
            return self.grant(name, call, false);
        }
        self.grant_or_queue(instance, (&id, call), request, queued.is_some())
    }

    /// Acquires without an offer to this call: grants a free lock, or queues the call.
    fn grant_or_queue(
        &mut self,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        request: &AcquireRequest,
        queued: bool,
    ) -> AcquireReply {
        let (name, clock, wait) = (&request.name, self.clock, wait(request));
        let fingerprint = fingerprint(request);
        let request_id = request.key.as_ref().map(|key| key.id.clone());
        if !self.holds.contains_key(name) {
            self.seq += 1;
            self.holds.insert(
                name.clone(),
                ModelHold {
                    lease: id.clone(),
                    call: call.clone(),
                    owner: request.owner.clone(),
                    seq: self.seq,
                    ttl: millis(request.ttl),
                    since: clock,
                    ends: 0,
                    offered: false,
                    request_id: request_id.clone(),
                },
            );
            let seq = Some(self.seq);
            self.records
                .extend(request_id.map(|request_id| (request_id, ModelRequest { fingerprint, id: id.clone(), seq })));
            return self.grant(name, call, false);
        }
        if wait == 0 {
            if queued {
                self.remove(name, id);
                self.forget(request_id.as_ref());
            }
            let holder = self.holds.get(name).and_then(|hold| self.holder_view(hold));
            return AcquireReply::Held { holder, waiting: self.waiting(name) };
        }
        if queued {
            return AcquireReply::Waiting { id: id.clone() };
        }
        if self.waiting(name) >= self.limits.waiters_per_lock.try_into().unwrap() {
            return AcquireReply::QueueFull;
        }
        self.queues.entry(name.clone()).or_default().push(ModelWaiter {
            id: id.clone(),
            call: call.clone(),
            instance: instance.clone(),
            owner: request.owner.clone(),
            ttl: millis(request.ttl),
            since: clock,
            ends: clock + wait + grace(wait),
            missed: false,
            absent: false,
            request_id: request_id.clone(),
        });
        self.records
            .extend(request_id.map(|request_id| (request_id, ModelRequest { fingerprint, id: id.clone(), seq: None })));
        self.instances.insert(instance.clone(), clock);
        AcquireReply::Waiting { id: id.clone() }
    }

    pub(super) fn claim(&mut self, name: &LockName, id: &LeaseId, call: &CallId) -> ClaimReply {
        let owned = self.find(name, id).map(|waiter| waiter.call == *call);
        match self.holds.get(name) {
            Some(hold) if hold.lease == *id && hold.call == *call => {
                if hold.offered {
                    self.start(name);
                }
                let hold = &self.holds[name];
                ClaimReply::Claimed { token: FencingToken::new(self.epoch, hold.seq), lease: self.time_left(hold) }
            }
            Some(hold) if hold.lease == *id => ClaimReply::TakenOver,
            _ if owned == Some(false) => ClaimReply::TakenOver,
            _ if owned == Some(true) => ClaimReply::Waiting,
            _ => ClaimReply::Absent,
        }
    }

    pub(super) fn cancel(
        &mut self,
        name: &LockName,
        (id, call): (&LeaseId, &CallId),
        request_id: &str,
        scope: CancelScope,
    ) -> CancelReply {
        let id = self.records.get(request_id).map_or_else(|| id.clone(), |record| record.id.clone());
        let hold = self.holds.get(name).filter(|hold| hold.lease == id && hold.call == *call);
        let hold = hold.filter(|hold| hold.offered || scope != CancelScope::Unclaimed).cloned();
        let position = self
            .queues
            .get(name)
            .and_then(|queue| queue.iter().position(|waiter| waiter.id == id && waiter.call == *call));
        if hold.is_none() && position.is_none() {
            return CancelReply::Nothing;
        }
        if scope == CancelScope::KeepPosition && position.is_some() {
            self.keep_position(name, &id, hold.is_some());
            return CancelReply::Kept;
        }
        let waiter = position.map(|_| self.remove(name, &id));
        self.forget(hold.as_ref().map_or_else(|| waiter.unwrap().request_id, |hold| hold.request_id.clone()).as_ref());
        let position = position.map_or(0, |position| i64::try_from(position).unwrap() + 1);
        if hold.is_some() {
            self.holds.remove(name);
            self.offer_next(name);
            return CancelReply::Cancelled { position, holder: None };
        }
        CancelReply::Cancelled { position, holder: self.holds.get(name).and_then(|hold| self.holder_view(hold)) }
    }

    fn keep_position(&mut self, name: &LockName, id: &LeaseId, offered: bool) {
        let latest = self.clock + POSITION_TTL;
        let waiter = self.find(name, id).unwrap();
        waiter.absent = true;
        waiter.ends = waiter.ends.min(latest);
        if offered {
            self.holds.remove(name);
            self.offer_next(name);
        }
    }

    pub(super) fn release(&mut self, name: &LockName, id: &LeaseId, token: FencingToken) -> LockRelease {
        let Some(ends) = self.end_of_hold(name, id, token) else { return LockRelease::NotHeld };
        self.end_hold(name);
        self.offer_next(name);
        if ends > self.clock { LockRelease::Released } else { LockRelease::NotHeld }
    }

    pub(super) fn renew(&mut self, name: &LockName, id: &LeaseId, token: FencingToken) -> RenewReply {
        match self.end_of_hold(name, id, token) {
            Some(ends) if ends > self.clock => {
                self.start(name);
                RenewReply::Renewed(time(self.holds[name].ttl))
            }
            _ => RenewReply::Lost,
        }
    }

    pub(super) fn sweep(&mut self, instance: &InstanceId, limit: usize) -> (bool, Duration) {
        self.instances.insert(instance.clone(), self.clock);
        let mut due: Vec<(i64, String)> = self.due().into_iter().map(|(entry, ends)| (ends, entry)).collect();
        due.retain(|(ends, _)| *ends <= self.clock);
        due.sort();
        due.truncate(limit);
        for (_, entry) in &due {
            self.end_entry(entry);
        }
        self.ended.sort();
        let over = self.ended.iter().take_while(|(until, _)| *until <= self.clock).take(limit).count();
        for (_, request_id) in self.ended.drain(..over).collect::<Vec<_>>() {
            self.forget(Some(&request_id));
        }
        self.instances.retain(|_, last_seen| self.clock - *last_seen <= FORGET_AFTER);
        (due.len() == limit || over == limit, time((self.quarantine - self.clock).max(0)))
    }

    pub(super) fn recheck<'a>(
        &mut self,
        instance: &InstanceId,
        waiters: impl Iterator<Item = (&'a LockName, &'a LeaseId, &'a CallId)>,
    ) -> Vec<WaiterStatus> {
        self.instances.insert(instance.clone(), self.clock);
        let status = |(name, id, call): (&LockName, &LeaseId, &CallId)| {
            let waiter = self.find(name, id);
            let ours = waiter.as_ref().map(|waiter| waiter.call == *call);
            if ours == Some(true) {
                waiter.unwrap().missed = false;
                if !self.holds.contains_key(name) {
                    self.offer_next(name);
                }
            }
            match self.holds.get(name).filter(|hold| hold.lease == *id) {
                Some(hold) if hold.call == *call => WaiterStatus::Offered,
                Some(_) => WaiterStatus::TakenOver,
                None => match ours {
                    Some(true) => WaiterStatus::Waiting,
                    Some(false) => WaiterStatus::TakenOver,
                    None => WaiterStatus::Absent,
                },
            }
        };
        waiters.map(status).collect()
    }

    pub(super) fn get(&self, name: &LockName, limit: usize) -> LockView {
        let hold = self.holds.get(name).filter(|hold| hold.ends > self.clock);
        let waiters = self.queues.get(name).into_iter().flatten().take(limit);
        LockView {
            last_token: FencingToken::new(self.epoch, self.seq),
            quarantine: time((self.quarantine - self.clock).max(0)),
            waiting: self.waiting(name),
            offered_token: hold.filter(|hold| hold.offered).map(|hold| FencingToken::new(self.epoch, hold.seq)),
            holder: hold.and_then(|hold| self.holder_view(hold)),
            waiters: waiters
                .map(|waiter| WaiterInfo { owner: waiter.owner.clone(), waited: time(self.clock - waiter.since) })
                .collect(),
        }
    }

    /// Returns all expiring entries with their times.
    pub(super) fn due(&self) -> BTreeMap<String, i64> {
        let holds = self.holds.iter().map(|(name, hold)| (format!("h{}", name.as_str()), hold.ends));
        let waiters = self.queues.values().flatten().map(|waiter| (format!("w{}", waiter.id.as_str()), waiter.ends));
        holds.chain(waiters).collect()
    }

    /// Returns the sizes of queue, requests, ended requests and instances.
    pub(super) fn sizes(&self) -> [usize; 4] {
        let waiters = self.queues.values().map(Vec::len).sum();
        [waiters, self.records.len(), self.ended.len(), self.instances.len()]
    }
}
