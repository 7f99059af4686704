//! The steps that the scripts share.

use std::time::Duration;

use tidings_lock::leases::Acquire;
use tidings_lock::model::{CallId, Holder, LeaseId, LockName, Token};

use super::{CLAIM_TIME, Hold, Queued, REMEMBERED, Reference, SILENCE, grace, time};

impl Reference {
    pub(super) fn end(&mut self, entry: &str) {
        if let Some(name) = entry.strip_prefix('h') {
            let name = LockName::new(name.to_owned());
            if self.holds.get(&name).is_some_and(|hold| hold.ends <= self.clock) {
                self.run_out(&name);
                self.offer_next(&name);
            }
            return;
        }
        let id = LeaseId::new(entry[1..].to_owned());
        let name = self.queues.iter().find(|(_, queue)| queue.iter().any(|queued| queued.id == id));
        if let Some(name) = name.map(|(name, _)| name.clone()) {
            let queued = self.remove(&name, &id);
            self.forget(queued.request.as_ref());
            if self.holds.get(&name).is_some_and(|hold| hold.lease == id) {
                self.holds.remove(&name);
                self.offer_next(&name);
            }
        }
    }

    pub(super) fn end_what_is_over(&mut self, name: &LockName) {
        if self.holds.get(name).is_some_and(|hold| hold.ends <= self.clock) {
            self.run_out(name);
            self.offer_next(name);
        }
    }

    pub(super) fn run_out(&mut self, name: &LockName) {
        let hold = self.holds.remove(name).unwrap();
        if hold.offered {
            if let Some(queued) = self.find(name, &hold.lease) {
                queued.missed = true;
            }
            return;
        }
        let Some(request) = hold.request else { return };
        self.ended.push((self.clock + REMEMBERED, request));
        self.ended.sort();
        while self.ended.len() > self.limits.ended {
            let (_, oldest) = self.ended.remove(0);
            self.forget(Some(&oldest));
        }
    }

    pub(super) fn offer_next(&mut self, name: &LockName) {
        let lives =
            |queued: &&Queued| self.instances.get(&queued.instance).is_some_and(|heard| self.clock - heard <= SILENCE);
        let live = || self.queues.get(name).into_iter().flatten().filter(lives);
        let Some(next) = live().find(|queued| !queued.missed).or_else(|| live().next()).cloned() else { return };
        self.seq += 1;
        let Queued { id, call, owner, ttl, request, .. } = next;
        let (seq, since, ends) = (self.seq, self.clock, self.clock + CLAIM_TIME);
        let hold = Hold { lease: id, call, owner, seq, ttl, since, ends, offered: true, request };
        self.holds.insert(name.clone(), hold);
    }

    pub(super) fn grant(&mut self, name: &LockName, call: &CallId, deduplicated: bool) -> Acquire {
        self.holds.get_mut(name).unwrap().call = call.clone();
        self.start(name);
        let hold = &self.holds[name];
        let token = Token::new(self.epoch, hold.seq);
        Acquire::Granted { id: hold.lease.clone(), token, lease: time(hold.ttl), deduplicated }
    }

    pub(super) fn start(&mut self, name: &LockName) {
        let clock = self.clock;
        let hold = self.holds.get_mut(name).unwrap();
        hold.ends = clock + hold.ttl + grace(hold.ttl);
        if hold.offered {
            (hold.offered, hold.since) = (false, clock);
            let (id, seq, request) = (hold.lease.clone(), hold.seq, hold.request.clone());
            self.remove(name, &id);
            if let Some(record) = request.and_then(|request| self.records.get_mut(&request)) {
                record.seq = Some(seq);
            }
        }
    }

    /// When the hold of this lease and token ends, if it stands.
    pub(super) fn claimed(&self, name: &LockName, id: &LeaseId, token: Token) -> Option<i64> {
        let hold = self.holds.get(name).filter(|hold| !hold.offered && hold.lease == *id)?;
        (Token::new(self.epoch, hold.seq) == token).then_some(hold.ends)
    }

    pub(super) fn find(&mut self, name: &LockName, id: &LeaseId) -> Option<&mut Queued> {
        self.queues.get_mut(name)?.iter_mut().find(|queued| queued.id == *id)
    }

    pub(super) fn remove(&mut self, name: &LockName, id: &LeaseId) -> Queued {
        let queue = self.queues.get_mut(name).unwrap();
        let place = queue.iter().position(|queued| queued.id == *id).unwrap();
        queue.remove(place)
    }

    pub(super) fn forget(&mut self, request: Option<&String>) {
        if let Some(request) = request {
            self.records.remove(request);
        }
    }

    pub(super) fn waiting(&self, name: &LockName) -> i64 {
        self.queues.get(name).map_or(0, Vec::len).try_into().unwrap()
    }

    pub(super) fn remaining(&self, hold: &Hold) -> Duration {
        time((hold.ends - grace(hold.ttl) - self.clock).max(0))
    }

    pub(super) fn seen(&self, hold: &Hold) -> Option<Holder> {
        (!hold.offered).then(|| Holder {
            owner: hold.owner.clone(),
            token: Token::new(self.epoch, hold.seq),
            held_for: time(self.clock - hold.since),
            remaining: self.remaining(hold),
        })
    }
}
