//! Health of a server and its services, reported over `grpc.health.v1`.
//!
//! Entries: `""` (the whole server), `readiness` (may this instance receive calls?), and one per
//! service name.
//!
//! An instance is ready from the success of its start-up check, if it has one, until its shutdown,
//! unless its service reports a defect of this instance alone. An outage of a dependency that all
//! instances share does not affect readiness.

mod rpc;

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Types generated from the upstream contract, client included.
#[expect(missing_docs, unused_qualifications, clippy::pedantic, clippy::allow_attributes, reason = "generated")]
#[cfg_attr(doc, expect(rustdoc::bare_urls, reason = "generated"))]
pub mod pb {
    tonic::include_proto!("grpc.health.v1");
}

/// The contract as an encoded `FileDescriptorSet`, for reflection.
pub(crate) const DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("health");

/// The state that an entry reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// The service performs its main function.
    Serving,
    /// The service cannot perform its main function at the moment.
    NotServing,
}

/// The handle through which a service reports its health; clones report to the same server.
#[derive(Clone, Debug, Default)]
// A single channel for the whole table: changes are rare, and a client may watch a name that does
// not exist yet without costing memory for that name.
pub struct Health(watch::Sender<HealthTable>);

#[derive(Debug, Default)]
struct HealthTable {
    entries: BTreeMap<String, HealthState>,
    /// Explanations of entries, for people who read `/readyz`.
    details: BTreeMap<String, String>,
    phase: ServerPhase,
    /// The dependency that the server waits for before it starts.
    dependency: String,
}

/// Phases of a server, in their order; a server never goes back. Entries report their own state in
/// `Serving` only, and NOT_SERVING in every other phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum ServerPhase {
    /// The start-up check has no result yet.
    Starting,
    /// The dependency is unavailable; calls are accepted and fail with UNAVAILABLE.
    Waiting,
    #[default]
    Serving,
    /// Shutdown has begun; connections are still accepted.
    LameDuck,
    /// Watches end.
    Closed,
}

impl Health {
    /// Entry of the whole server.
    pub const SERVER: &str = "";
    /// Entry that reports whether this instance may receive calls.
    pub const READINESS: &str = "readiness";

    /// Sets the state of an entry, and creates the entry if absent. Watchers are notified of a
    /// change.
    ///
    /// During shutdown the entry reports NOT_SERVING nevertheless.
    pub fn set(&self, entry: &str, state: HealthState) {
        self.0.send_if_modified(|table| {
            let changed = table.entries.insert(entry.to_owned(), state) != Some(state);
            if changed {
                tracing::info!(entry, ?state, "health changed");
            }
            changed
        });
    }

    /// Sets the explanation of an entry that `/readyz` shows. Watchers are not notified.
    pub fn set_detail(&self, entry: &str, detail: String) {
        self.0.send_if_modified(|table| {
            if detail.is_empty() {
                table.details.remove(entry);
            } else {
                table.details.insert(entry.to_owned(), detail);
            }
            false
        });
    }

    /// Creates absent entries, as SERVING.
    pub(crate) fn register(&self, entries: &[&str]) {
        self.0.send_modify(|table| {
            for entry in entries {
                table.entries.entry((*entry).to_owned()).or_insert(HealthState::Serving);
            }
        });
    }

    /// Names the dependency to wait for. Every entry is NOT_SERVING until [`Health::mark_started`].
    pub fn mark_starting(&self, dependency: String) {
        self.0.send_modify(|table| {
            table.dependency = dependency;
            if table.phase == ServerPhase::Serving {
                table.phase = ServerPhase::Starting;
            }
        });
    }

    /// Marks the dependency as unavailable, described with the reason.
    pub fn mark_waiting(&self, dependency: String) {
        self.0.send_if_modified(|table| {
            table.dependency = dependency;
            let new = table.phase == ServerPhase::Starting;
            if new {
                table.phase = ServerPhase::Waiting;
            }
            new
        });
    }

    /// Marks the start-up as complete.
    pub fn mark_started(&self) {
        self.0.send_modify(|table| table.phase = table.phase.max(ServerPhase::Serving));
    }

    /// Waits for the first result of the start-up check.
    pub(crate) async fn past_starting(&self) {
        // The channel cannot close: its sender is ours.
        let _ = self.0.subscribe().wait_for(|table| table.phase > ServerPhase::Starting).await;
    }

    /// Returns the readiness of this instance, and a text with one line for each entry, its state
    /// and its explanation, followed by the dependency that it waits for.
    pub fn readiness(&self) -> (bool, String) {
        let table = self.0.borrow();
        let is_waiting = table.phase < ServerPhase::Serving;
        let lines = table.entries.keys().map(|entry| {
            let name = if entry.is_empty() { "server" } else { entry };
            let state = if table.state(entry) == Some(HealthState::Serving) { "SERVING" } else { "NOT_SERVING" };
            let detail = table.details.get(entry).map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{name} {state}{detail}\n")
        });
        let dependency = is_waiting.then(|| format!("waiting for {}\n", table.dependency));
        (table.state(Self::READINESS) == Some(HealthState::Serving), lines.chain(dependency).collect())
    }

    /// Makes all entries report NOT_SERVING. Returns whether the server was serving: a server that
    /// never started gets no calls, so it needs no lame duck time.
    pub(crate) fn enter_lame_duck(&self) -> bool {
        let mut was_serving = false;
        self.0.send_modify(|table| {
            was_serving = table.phase == ServerPhase::Serving;
            table.phase = table.phase.max(ServerPhase::LameDuck);
        });
        was_serving
    }

    /// Ends all watches, after they have sent the last change.
    pub(crate) fn end_watches(&self) {
        self.0.send_modify(|table| table.phase = ServerPhase::Closed);
    }
}

impl HealthTable {
    /// Returns the state of an entry as callers see it; `None` if there is no such entry.
    fn state(&self, entry: &str) -> Option<HealthState> {
        let reported = *self.entries.get(entry)?;
        Some(if self.phase == ServerPhase::Serving { reported } else { HealthState::NotServing })
    }
}
