//! What the scripts shall do, said once more without Redis.

mod steps;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidings_lock::leases::{Acquire, Cancel, Claim, Limits, Place, Release, Renew, View};
use tidings_lock::model::{CallId, Epoch, InstanceId, LeaseId, LockName, Token, Waiter, Wish};

const CLAIM_TIME: i64 = 1500;
const SILENCE: i64 = 1500;
const REMEMBERED: i64 = 600_000;
const FORGOTTEN: i64 = 300_000;

#[derive(Clone)]
struct Hold {
    lease: LeaseId,
    call: CallId,
    owner: String,
    seq: i64,
    ttl: i64,
    since: i64,
    ends: i64,
    offered: bool,
    request: Option<String>,
}

#[derive(Clone)]
struct Queued {
    id: LeaseId,
    call: CallId,
    instance: InstanceId,
    owner: String,
    ttl: i64,
    since: i64,
    ends: i64,
    missed: bool,
    request: Option<String>,
}

#[derive(Clone)]
struct Record {
    fingerprint: [u8; 16],
    id: LeaseId,
    seq: Option<i64>,
}

/// One partition.
pub(super) struct Reference {
    pub(super) clock: i64,
    pub(super) quarantine: i64,
    epoch: Epoch,
    limits: Limits,
    seq: i64,
    holds: BTreeMap<LockName, Hold>,
    queues: BTreeMap<LockName, Vec<Queued>>,
    records: HashMap<String, Record>,
    ended: Vec<(i64, String)>,
    instances: HashMap<InstanceId, i64>,
}

fn millis(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap()
}

fn time(millis: i64) -> Duration {
    Duration::from_millis(millis.try_into().unwrap())
}

fn wait(wish: &Wish) -> i64 {
    wish.until.map_or(0, |until| millis(until - wish.arrived))
}

fn fingerprint(wish: &Wish) -> [u8; 16] {
    wish.request.as_ref().map_or([0; 16], |request| request.fingerprint)
}

fn grace(ttl: i64) -> i64 {
    1000 + ttl / 100
}

impl Reference {
    pub(super) fn new(epoch: Epoch, limits: Limits, quarantine: Duration) -> Self {
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

    /// The id under which a call has what it has.
    pub(super) fn id_of(&self, id: &LeaseId, wish: &Wish) -> LeaseId {
        let record = wish.request.as_ref().and_then(|request| self.records.get(&request.id));
        record.map_or_else(|| id.clone(), |record| record.id.clone())
    }

    /// Whether a call holds the lock.
    pub(super) fn claimed_by(&self, id: &LeaseId, wish: &Wish, call: &CallId) -> bool {
        self.holds.get(&wish.name).is_some_and(|hold| hold.lease == *id && hold.call == *call && !hold.offered)
    }

    pub(super) fn acquire(
        &mut self,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        wish: &Wish,
        again: bool,
    ) -> Acquire {
        let (name, wait) = (&wish.name, wait(wish));
        let record = wish.request.as_ref().and_then(|request| self.records.get(&request.id)).cloned();
        if record.as_ref().is_some_and(|record| record.fingerprint != fingerprint(wish)) {
            return Acquire::Reused;
        }
        let id = self.id_of(id, wish);
        self.end_what_is_over(name);
        let held_by = self.holds.get(name).filter(|hold| hold.lease == id).map(|hold| hold.call.clone());
        let queued_by = self.find(name, &id).map(|queued| queued.call.clone());
        if again && held_by.into_iter().chain(queued_by).any(|other| other != *call) {
            return Acquire::Taken;
        }
        if let Some(hold) = self.holds.get(name).filter(|hold| hold.lease == id && !hold.offered) {
            let deduplicated = hold.call != *call;
            let told = if deduplicated { &CallId::new(String::new()) } else { call };
            return self.grant(name, told, deduplicated);
        }
        let clock = self.clock;
        let queued = self.find(name, &id).map(|queued| {
            queued.call = call.clone();
            queued.instance = instance.clone();
            queued.missed = false;
            queued.ends = clock + wait + grace(wait);
        });
        if queued.is_some() {
            self.instances.insert(instance.clone(), clock);
        } else if let Some(seq) = record.as_ref().and_then(|record| record.seq) {
            return Acquire::LeaseOver(Token::new(self.epoch, seq));
        } else if self.quarantine > clock {
            return Acquire::Quarantine(time(self.quarantine - clock));
        }

        if !self.holds.contains_key(name) {
            self.offer_next(name);
        }
        if self.holds.get(name).is_some_and(|hold| hold.lease == id) {
            return self.grant(name, call, false);
        }
        self.get_or_queue(instance, (&id, call), wish, queued.is_some())
    }

    /// Nothing is offered to this call: it gets the lock if nobody else has it, and queues if it may.
    fn get_or_queue(
        &mut self,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        wish: &Wish,
        queued: bool,
    ) -> Acquire {
        let (name, clock, wait) = (&wish.name, self.clock, wait(wish));
        let fingerprint = fingerprint(wish);
        let request = wish.request.as_ref().map(|request| request.id.clone());
        if !self.holds.contains_key(name) {
            self.seq += 1;
            self.holds.insert(
                name.clone(),
                Hold {
                    lease: id.clone(),
                    call: call.clone(),
                    owner: wish.owner.clone(),
                    seq: self.seq,
                    ttl: millis(wish.ttl),
                    since: clock,
                    ends: 0,
                    offered: false,
                    request: request.clone(),
                },
            );
            let seq = Some(self.seq);
            self.records.extend(request.map(|request| (request, Record { fingerprint, id: id.clone(), seq })));
            return self.grant(name, call, false);
        }
        if wait == 0 {
            if queued {
                self.remove(name, id);
                self.forget(request.as_ref());
            }
            let holder = self.holds.get(name).and_then(|hold| self.seen(hold));
            return Acquire::Held { holder, waiting: self.waiting(name) };
        }
        if queued {
            return Acquire::Waiting { id: id.clone() };
        }
        if self.waiting(name) >= self.limits.queue.try_into().unwrap() {
            return Acquire::QueueFull;
        }
        self.queues.entry(name.clone()).or_default().push(Queued {
            id: id.clone(),
            call: call.clone(),
            instance: instance.clone(),
            owner: wish.owner.clone(),
            ttl: millis(wish.ttl),
            since: clock,
            ends: clock + wait + grace(wait),
            missed: false,
            request: request.clone(),
        });
        self.records.extend(request.map(|request| (request, Record { fingerprint, id: id.clone(), seq: None })));
        self.instances.insert(instance.clone(), clock);
        Acquire::Waiting { id: id.clone() }
    }

    pub(super) fn claim(&mut self, name: &LockName, id: &LeaseId, call: &CallId) -> Claim {
        let queued = self.find(name, id).map(|queued| queued.call == *call);
        match self.holds.get(name) {
            Some(hold) if hold.lease == *id && hold.call == *call => {
                if hold.offered {
                    self.start(name);
                }
                let hold = &self.holds[name];
                Claim::Claimed { token: Token::new(self.epoch, hold.seq), lease: self.remaining(hold) }
            }
            Some(hold) if hold.lease == *id => Claim::Taken,
            _ if queued == Some(false) => Claim::Taken,
            _ if queued == Some(true) => Claim::Waiting,
            _ => Claim::Gone,
        }
    }

    pub(super) fn cancel(
        &mut self,
        name: &LockName,
        (id, call): (&LeaseId, &CallId),
        request: &str,
        claimed: bool,
    ) -> Cancel {
        let id = self.records.get(request).map_or_else(|| id.clone(), |record| record.id.clone());
        let hold = self.holds.get(name).filter(|hold| hold.lease == id && hold.call == *call);
        let hold = hold.filter(|hold| hold.offered || claimed).cloned();
        let place = self
            .queues
            .get(name)
            .and_then(|queue| queue.iter().position(|queued| queued.id == id && queued.call == *call));
        if hold.is_none() && place.is_none() {
            return Cancel::Nothing;
        }
        let queued = place.map(|_| self.remove(name, &id));
        self.forget(hold.as_ref().map_or_else(|| queued.unwrap().request, |hold| hold.request.clone()).as_ref());
        let position = place.map_or(0, |place| i64::try_from(place).unwrap() + 1);
        if hold.is_some() {
            self.holds.remove(name);
            self.offer_next(name);
            return Cancel::Left { position, holder: None };
        }
        Cancel::Left { position, holder: self.holds.get(name).and_then(|hold| self.seen(hold)) }
    }

    pub(super) fn release(&mut self, name: &LockName, id: &LeaseId, token: Token) -> Release {
        let Some(ends) = self.claimed(name, id, token) else { return Release::NotHeld };
        self.run_out(name);
        self.offer_next(name);
        if ends > self.clock { Release::Released } else { Release::NotHeld }
    }

    pub(super) fn renew(&mut self, name: &LockName, id: &LeaseId, token: Token) -> Renew {
        match self.claimed(name, id, token) {
            Some(ends) if ends > self.clock => {
                self.start(name);
                Renew::Renewed(time(self.holds[name].ttl))
            }
            _ => Renew::Lost,
        }
    }

    pub(super) fn sweep(&mut self, instance: &InstanceId, limit: usize) -> (bool, Duration) {
        self.instances.insert(instance.clone(), self.clock);
        let mut due: Vec<(i64, String)> = self.due().into_iter().map(|(entry, ends)| (ends, entry)).collect();
        due.retain(|(ends, _)| *ends <= self.clock);
        due.sort();
        due.truncate(limit);
        for (_, entry) in &due {
            self.end(entry);
        }
        self.ended.sort();
        let over = self.ended.iter().take_while(|(until, _)| *until <= self.clock).take(limit).count();
        for (_, request) in self.ended.drain(..over).collect::<Vec<_>>() {
            self.forget(Some(&request));
        }
        self.instances.retain(|_, heard| self.clock - *heard <= FORGOTTEN);
        (due.len() == limit || over == limit, time((self.quarantine - self.clock).max(0)))
    }

    pub(super) fn reread<'a>(
        &mut self,
        instance: &InstanceId,
        places: impl Iterator<Item = (&'a LockName, &'a LeaseId, &'a CallId)>,
    ) -> Vec<Place> {
        self.instances.insert(instance.clone(), self.clock);
        let look = |(name, id, call): (&LockName, &LeaseId, &CallId)| {
            let queued = self.find(name, id);
            let ours = queued.as_ref().map(|queued| queued.call == *call);
            if ours == Some(true) {
                queued.unwrap().missed = false;
                if !self.holds.contains_key(name) {
                    self.offer_next(name);
                }
            }
            match self.holds.get(name).filter(|hold| hold.lease == *id) {
                Some(hold) if hold.call == *call => Place::Offered,
                Some(_) => Place::Taken,
                None => match ours {
                    Some(true) => Place::Waiting,
                    Some(false) => Place::Taken,
                    None => Place::Missing,
                },
            }
        };
        places.map(look).collect()
    }

    pub(super) fn look(&self, name: &LockName, limit: usize) -> View {
        let hold = self.holds.get(name).filter(|hold| hold.ends > self.clock);
        let waiters = self.queues.get(name).into_iter().flatten().take(limit);
        View {
            last: Token::new(self.epoch, self.seq),
            quarantine: time((self.quarantine - self.clock).max(0)),
            waiting: self.waiting(name),
            offered: hold.filter(|hold| hold.offered).map(|hold| Token::new(self.epoch, hold.seq)),
            holder: hold.and_then(|hold| self.seen(hold)),
            waiters: waiters
                .map(|queued| Waiter { owner: queued.owner.clone(), waited: time(self.clock - queued.since) })
                .collect(),
        }
    }

    /// What ends by itself, and when.
    pub(super) fn due(&self) -> BTreeMap<String, i64> {
        let holds = self.holds.iter().map(|(name, hold)| (format!("h{}", name.as_str()), hold.ends));
        let queued = self.queues.values().flatten().map(|queued| (format!("w{}", queued.id.as_str()), queued.ends));
        holds.chain(queued).collect()
    }

    /// Sizes of the queue, the requests, those that are over, the instances.
    pub(super) fn sizes(&self) -> [usize; 4] {
        let queued = self.queues.values().map(Vec::len).sum();
        [queued, self.records.len(), self.ended.len(), self.instances.len()]
    }
}
