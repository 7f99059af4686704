//! Health of a server and its services, told by `grpc.health.v1`.
//!
//! Entries: `""` (the whole server), `readiness` (may this instance get calls?), and one per service name.

mod rpc;

use std::collections::BTreeMap;

use tokio::sync::watch;

pub(crate) use rpc::DESCRIPTOR_SET;
pub use rpc::pb;

/// What an entry reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does its main job.
    Serving,
    /// It does not, at the moment.
    NotServing,
}

/// The handle by which a service reports its health; clones report to the same server.
#[derive(Clone, Debug, Default)]
// One channel for the whole table, as changes are rare and a watcher of a name that does not exist yet hears of it
// without anything being kept for that name.
pub struct Health(watch::Sender<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<String, State>,
    /// What there is to say about entries, for people.
    details: BTreeMap<String, String>,
    phase: Phase,
    /// What has to be done before it is open.
    first: String,
}

/// Ordered: a server never gets younger. Only an open one reports what was set, all others NOT_SERVING for every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Something has to be done first, and nobody knows yet whether it can be.
    Beginning,
    /// It can not be done at the moment: calls are accepted, and told so.
    Waiting,
    #[default]
    Open,
    /// Every entry is NOT_SERVING, whatever is reported.
    Retired,
    /// Watches end as well.
    Closed,
}

impl Health {
    /// The entry of the whole server.
    pub const SERVER: &str = "";
    /// The entry that says whether this instance may get calls.
    pub const READINESS: &str = "readiness";

    /// Sets the state of an entry, which is made if absent; watchers hear of a change.
    ///
    /// During shutdown the entry stays NOT_SERVING all the same.
    pub fn set(&self, entry: &str, state: State) {
        self.0.send_if_modified(|table| {
            let changed = table.entries.insert(entry.to_owned(), state) != Some(state);
            if changed {
                tracing::info!(entry, ?state, "health changed");
            }
            changed
        });
    }

    /// Says something about an entry, to people who ask `/readyz`; nobody is woken for it.
    pub(crate) fn explain(&self, entry: &str, detail: String) {
        self.0.send_if_modified(|table| {
            if detail.is_empty() {
                table.details.remove(entry);
            } else {
                table.details.insert(entry.to_owned(), detail);
            }
            false
        });
    }

    /// Makes the entries that are still absent, as SERVING.
    pub(crate) fn open(&self, entries: &[&str]) {
        self.0.send_modify(|table| {
            for entry in entries {
                table.entries.entry((*entry).to_owned()).or_insert(State::Serving);
            }
        });
    }

    /// Says what has to be done first: until [`Health::begin`] every entry is NOT_SERVING.
    pub(crate) fn hold(&self, first: String) {
        self.0.send_modify(|table| {
            table.first = first;
            if table.phase == Phase::Open {
                table.phase = Phase::Beginning;
            }
        });
    }

    /// Says that what has to be done first can not be done at the moment. Returns whether that is new.
    pub(crate) fn wait(&self) -> bool {
        self.0.send_if_modified(|table| {
            let new = table.phase == Phase::Beginning;
            if new {
                table.phase = Phase::Waiting;
            }
            new
        })
    }

    /// Says that what had to be done first is done.
    pub(crate) fn begin(&self) {
        self.0.send_modify(|table| table.phase = table.phase.max(Phase::Open));
    }

    /// Waits until it is known whether what has to be done first can be.
    pub(crate) async fn known(&self) {
        // The sender is ours: it does not go away.
        let _ = self.0.subscribe().wait_for(|table| table.phase > Phase::Beginning).await;
    }

    /// Whether this instance may get calls, and every entry with its state and what there is to say about it, one a
    /// line; then what is waited for.
    pub(crate) fn readiness(&self) -> (bool, String) {
        let table = self.0.borrow();
        let waits = table.phase < Phase::Open;
        let lines = table.entries.keys().map(|entry| {
            let name = if entry.is_empty() { "server" } else { entry };
            let state = if table.state(entry) == Some(State::Serving) { "SERVING" } else { "NOT_SERVING" };
            let detail = table.details.get(entry).map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{name} {state}{detail}\n")
        });
        let first = waits.then(|| format!("waiting for {}\n", table.first));
        (table.state(Self::READINESS) == Some(State::Serving), lines.chain(first).collect())
    }

    /// Reports NOT_SERVING for all entries from now on. Returns whether that is news: of what has not begun nobody expects
    /// calls.
    pub(crate) fn retire(&self) -> bool {
        let mut open = false;
        self.0.send_modify(|table| {
            open = table.phase == Phase::Open;
            table.phase = table.phase.max(Phase::Retired);
        });
        open
    }

    /// Ends all watches, after they have told the last change.
    pub(crate) fn close(&self) {
        self.0.send_modify(|table| table.phase = Phase::Closed);
    }
}

impl Table {
    /// The state of an entry as callers shall see it, `None` if there is no such entry.
    fn state(&self, entry: &str) -> Option<State> {
        let reported = *self.entries.get(entry)?;
        Some(if self.phase == Phase::Open { reported } else { State::NotServing })
    }
}
