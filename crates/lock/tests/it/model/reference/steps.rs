//! Steps that several scripts share.

use std::time::Duration;

use tidings_lock::leases::AcquireReply;
use tidings_lock::model::{CallId, FencingToken, HolderInfo, LeaseId, LockName};

use super::{INSTANCE_TIMEOUT, LockModel, ModelHold, ModelWaiter, OFFER_TTL, REQUEST_TTL, grace, time};

impl LockModel {
    pub(super) fn end_entry(&mut self, entry: &str) {
        if let Some(name) = entry.strip_prefix('h') {
            let name = LockName::new(name.to_owned());
            if self.holds.get(&name).is_some_and(|hold| hold.ends <= self.clock) {
                self.end_hold(&name);
                self.offer_next(&name);
            }
            return;
        }
        let id = LeaseId::new(entry[1..].to_owned());
        let name = self.queues.iter().find(|(_, queue)| queue.iter().any(|waiter| waiter.id == id));
        if let Some(name) = name.map(|(name, _)| name.clone()) {
            let waiter = self.remove(&name, &id);
            self.forget(waiter.request_id.as_ref());
            if self.holds.get(&name).is_some_and(|hold| hold.lease == id) {
                self.holds.remove(&name);
                self.offer_next(&name);
            }
        }
    }

    pub(super) fn end_expired_hold(&mut self, name: &LockName) {
        if self.holds.get(name).is_some_and(|hold| hold.ends <= self.clock) {
            self.end_hold(name);
            self.offer_next(name);
        }
    }

    pub(super) fn end_hold(&mut self, name: &LockName) {
        let hold = self.holds.remove(name).unwrap();
        if hold.offered {
            if let Some(waiter) = self.find(name, &hold.lease) {
                waiter.missed = true;
            }
            return;
        }
        let Some(request_id) = hold.request_id else { return };
        self.ended.push((self.clock + REQUEST_TTL, request_id));
        self.ended.sort();
        while self.ended.len() > self.limits.ended_requests {
            let (_, oldest) = self.ended.remove(0);
            self.forget(Some(&oldest));
        }
    }

    pub(super) fn offer_next(&mut self, name: &LockName) {
        let lives = |waiter: &&ModelWaiter| {
            self.instances.get(&waiter.instance).is_some_and(|last_seen| self.clock - last_seen <= INSTANCE_TIMEOUT)
        };
        let live = || self.queues.get(name).into_iter().flatten().filter(|waiter| !waiter.absent).filter(lives);
        let Some(next) = live().find(|waiter| !waiter.missed).or_else(|| live().next()).cloned() else { return };
        self.seq += 1;
        let ModelWaiter { id, call, owner, ttl, request_id, .. } = next;
        let (seq, since, ends) = (self.seq, self.clock, self.clock + OFFER_TTL);
        let hold = ModelHold { lease: id, call, owner, seq, ttl, since, ends, offered: true, request_id };
        self.holds.insert(name.clone(), hold);
    }

    pub(super) fn grant(&mut self, name: &LockName, call: &CallId, deduplicated: bool) -> AcquireReply {
        self.holds.get_mut(name).unwrap().call = call.clone();
        self.start(name);
        let hold = &self.holds[name];
        let token = FencingToken::new(self.epoch, hold.seq);
        AcquireReply::Granted { id: hold.lease.clone(), token, lease: time(hold.ttl), deduplicated }
    }

    pub(super) fn start(&mut self, name: &LockName) {
        let clock = self.clock;
        let hold = self.holds.get_mut(name).unwrap();
        hold.ends = clock + hold.ttl + grace(hold.ttl);
        if hold.offered {
            (hold.offered, hold.since) = (false, clock);
            let (id, seq, request_id) = (hold.lease.clone(), hold.seq, hold.request_id.clone());
            self.remove(name, &id);
            if let Some(record) = request_id.and_then(|request_id| self.records.get_mut(&request_id)) {
                record.seq = Some(seq);
            }
        }
    }

    /// Returns the end of the hold with this lease and token.
    pub(super) fn end_of_hold(&self, name: &LockName, id: &LeaseId, token: FencingToken) -> Option<i64> {
        let hold = self.holds.get(name).filter(|hold| !hold.offered && hold.lease == *id)?;
        (FencingToken::new(self.epoch, hold.seq) == token).then_some(hold.ends)
    }

    pub(super) fn find(&mut self, name: &LockName, id: &LeaseId) -> Option<&mut ModelWaiter> {
        self.queues.get_mut(name)?.iter_mut().find(|waiter| waiter.id == *id)
    }

    pub(super) fn remove(&mut self, name: &LockName, id: &LeaseId) -> ModelWaiter {
        let queue = self.queues.get_mut(name).unwrap();
        let position = queue.iter().position(|waiter| waiter.id == *id).unwrap();
        queue.remove(position)
    }

    pub(super) fn forget(&mut self, request_id: Option<&String>) {
        if let Some(request_id) = request_id {
            self.records.remove(request_id);
        }
    }

    pub(super) fn waiting(&self, name: &LockName) -> i64 {
        self.queues.get(name).map_or(0, Vec::len).try_into().unwrap()
    }

    pub(super) fn time_left(&self, hold: &ModelHold) -> Duration {
        time((hold.ends - grace(hold.ttl) - self.clock).max(0))
    }

    pub(super) fn holder_view(&self, hold: &ModelHold) -> Option<HolderInfo> {
        (!hold.offered).then(|| HolderInfo {
            owner: hold.owner.clone(),
            token: FencingToken::new(self.epoch, hold.seq),
            held_for: time(self.clock - hold.since),
            remaining: self.time_left(hold),
        })
    }
}
