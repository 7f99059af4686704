//! The relay: updates the tails, publishes to broadcast, and deletes an outbox row only when both
//! have its messages.
//!
//! The rows of one conversation are relayed in order, so that its messages are published in order.
//! A relay that is killed between any two lines loses nothing: the row is still in the outbox. A
//! message that is published twice is recognised by (seq, edit_version): by broadcast for as long
//! as it remembers the request id, by subscribers at any time.
//!
//! The outbox has 16 shards, of which each instance leases a fair share. A step takes the oldest
//! rows of each leased shard. It updates the tails first, then publishes the messages in their
//! current version. Rows wait while broadcast is unavailable. A row that broadcast refuses blocks
//! the later rows of its conversation until it is parked.

mod batch;

use std::collections::HashSet;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tidings_trace::{TraceParent, exporting};
use tokio::sync::{Mutex, Notify};
use tracing::Span;
use uuid::Uuid;

use self::batch::{RowChunk, batches};
use super::Error;
use crate::cache::Tails;
use crate::metrics::Metrics;
use crate::model::{ConversationNo, Shard};
use crate::peer::{self, Broadcast, OutgoingMessage};
use crate::store::{Backlog, LeasedShards, PendingRange, SeqRange, Store};

/// Maximum number of rows that one step takes from each shard.
const SHARD_ROWS: i64 = 32;
/// TTL of a shard lease, after which other workers take over the shards of a dead one.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// Interval at which a worker renews its leases.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which a failing worker takes no lease, so that every other worker gets a chance to.
const PAUSE: Duration = Duration::from_millis(1500);
/// Failed calls in a row after which a step ends: broadcast is unavailable for all conversations.
const FAILURES_MAX: u32 = 2;

/// The relay of one instance.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    tails: Arc<Tails>,
    broadcast: Option<Broadcast>,
    park_after: i32,
    /// Random name of this instance in `relay_worker` and `relay_shard`.
    worker: String,
    leases: Mutex<ShardLeases>,
    /// Bit set of the leased shards, for [`Relay::notify`].
    leased_mask: AtomicU32,
    wakeup: Notify,
    metrics: Arc<Metrics>,
}

/// The shards that this instance has leased.
#[derive(Debug, Default)]
struct ShardLeases {
    leased: LeasedShards,
    /// Time of the next renewal; `None`: due now.
    renew_at: Option<Instant>,
}

impl ShardLeases {
    /// Returns true if the leases have to be renewed.
    fn is_due(&self) -> bool {
        self.renew_at.is_none_or(|time| time <= Instant::now())
    }
}

/// Result of one phase of a step: a flag for each row, and the error that left rows undone.
#[derive(Debug)]
struct RelayProgress {
    done: Vec<bool>,
    failed: Option<Error>,
}

impl Relay {
    /// Creates the relay from `store` to `tails` and to `broadcast`, if there is one. A row that
    /// broadcast has refused `park_after` times is parked.
    pub fn new(store: Store, tails: Arc<Tails>, broadcast: Option<Broadcast>, park_after: u16) -> Self {
        Self {
            store,
            tails,
            broadcast,
            park_after: park_after.into(),
            worker: Uuid::new_v4().to_string(),
            leases: Mutex::default(),
            leased_mask: AtomicU32::new(0),
            wakeup: Notify::new(),
            metrics: Metrics::new(),
        }
    }

    /// Relays the oldest rows of the leased shards. Returns true if there may be more.
    ///
    /// After a failure the shards are released, if there are other workers: they may reach the
    /// Redis or broadcast that this instance does not.
    pub async fn step(&self) -> Result<bool, Error> {
        let relayed = self.relay().await;
        if relayed.is_err() && self.leases.lock().await.leased.has_peers {
            self.release_shards().await;
        }
        relayed
    }

    async fn relay(&self) -> Result<bool, Error> {
        let shards = self.lease().await?;
        let pending = self.store.outbox.pending(&shards, SHARD_ROWS).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        let tails = self.update_tails(&pending).await;
        fail::fail_point!("history::relay_after_tails");
        let published = self.publish(&pending, &tails.done).await;
        fail::fail_point!("history::relay_after_publish");
        let more = self.finish(&pending, &tails.done, &published.done).await?;
        match tails.failed.or(published.failed) {
            Some(error) => Err(error),
            None => Ok(more),
        }
    }

    /// Wakes the relay because a shard has new rows. Does so if this instance leases the shard, or
    /// if a renewal is due, which may lease it.
    pub fn notify(&self, shard: Shard) {
        let leased = self.leased_mask.load(Ordering::Relaxed) & (1 << shard.get()) != 0;
        if leased || self.leases.try_lock().is_ok_and(|leases| leases.is_due()) {
            self.wakeup.notify_one();
        }
    }

    /// Waits until [`Self::notify`] wakes the relay.
    pub async fn wait_for_work(&self) {
        self.wakeup.notified().await;
    }

    /// Measures the rows to relay, in all shards.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let backlog = self.store.outbox.backlog().await?;
        self.metrics.set_backlog(&backlog);
        Ok(backlog)
    }

    /// Releases all shards, and takes none for `PAUSE`.
    pub async fn release_shards(&self) {
        *self.leases.lock().await = ShardLeases { renew_at: Some(Instant::now() + PAUSE), ..ShardLeases::default() };
        self.leased_mask.store(0, Ordering::Relaxed);
        self.metrics.set_leased_shards(0);
        if let Err(error) = self.store.shards.release(&self.worker).await {
            tracing::debug!(%error, "failed to release shard leases: other instances wait until they expire");
        }
    }

    /// Returns the leased shards, after a renewal if it is due.
    async fn lease(&self) -> Result<Vec<Shard>, Error> {
        let mut leases = self.leases.lock().await;
        if leases.is_due() {
            let renew_at = Instant::now() + RENEW_INTERVAL;
            let taken = self.store.shards.lease(&self.worker, LEASE_TTL).await?;
            let mask = taken.shards.iter().fold(0, |mask, shard| mask | (1 << shard.get()));
            self.leased_mask.store(mask, Ordering::Relaxed);
            self.metrics.set_leased_shards(taken.shards.len());
            *leases = ShardLeases { leased: taken, renew_at: Some(renew_at) };
        }
        Ok(leases.leased.shards.clone())
    }

    /// Makes sure that the tails have the messages of all rows.
    async fn update_tails(&self, pending: &[PendingRange]) -> RelayProgress {
        let last_seqs: Vec<_> = pending.iter().map(|row| (row.conversation.clone(), row.last_seq)).collect();
        let mut progress = match self.tails.confirm(&last_seqs).await {
            Ok(done) => RelayProgress { done, failed: None },
            Err(error) => return RelayProgress { done: vec![false; pending.len()], failed: Some(error.into()) },
        };
        for (index, row) in pending.iter().enumerate() {
            if !progress.done[index] {
                match self.repair(row).await {
                    Ok(()) => progress.done[index] = true,
                    // Other conversations are still repaired.
                    Err(error) => progress.failed = Some(error),
                }
            }
        }
        progress
    }

    /// Appends the messages of a row to a tail that lacks them.
    async fn repair(&self, row: &PendingRange) -> Result<(), Error> {
        let messages = self.store.messages.ranges_for_relay(&[range(row)]).await?.pop().unwrap_or_default();
        self.tails.append(&row.conversation, &messages, None).await?;
        self.metrics.repairs.increment(1);
        Ok(())
    }

    /// Publishes the messages of all rows that broadcast does not have, in their current version.
    ///
    /// A refused row blocks the later rows of its conversation, and so does a failed call for this
    /// step. While broadcast is unavailable the rows wait; that does not count as a refusal.
    async fn publish(&self, pending: &[PendingRange], in_tails: &[bool]) -> RelayProgress {
        let Some(broadcast) = &self.broadcast else {
            return RelayProgress { done: vec![true; pending.len()], failed: None };
        };
        let mut progress = RelayProgress { done: pending.iter().map(|row| row.published).collect(), failed: None };
        let rows: Vec<usize> = (0..pending.len()).filter(|row| !progress.done[*row]).collect();
        let ranges: Vec<_> = rows.iter().map(|row| range(&pending[*row])).collect();
        let messages = match self.store.messages.ranges_for_relay(&ranges).await {
            Ok(messages) => messages,
            Err(error) => return RelayProgress { failed: Some(error.into()), ..progress },
        };
        let (mut blocked, mut failures): (HashSet<ConversationNo>, _) = (HashSet::new(), 0);
        for batch in batches(rows, messages) {
            let chunks: Vec<RowChunk> =
                batch.into_iter().filter(|chunk| !blocked.contains(&pending[chunk.row].no)).collect();
            match self.send(broadcast, pending, in_tails, &chunks, &mut blocked).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    (progress.failed, failures) = (Some(error), failures + 1);
                    if failures == FAILURES_MAX {
                        return progress;
                    }
                    // Other conversations go on.
                    blocked.extend(chunks.iter().map(|chunk| pending[chunk.row].no));
                }
            }
            for chunk in chunks.iter().filter(|chunk| chunk.last) {
                progress.done[chunk.row] = !blocked.contains(&pending[chunk.row].no);
            }
        }
        progress
    }

    /// Publishes a batch in one call. If broadcast refuses it, publishes its chunks one by one, to
    /// find the refused rows. Adds the conversations of refused rows to `blocked`.
    async fn send(
        &self,
        broadcast: &Broadcast,
        pending: &[PendingRange],
        in_tails: &[bool],
        batch: &[RowChunk],
        blocked: &mut HashSet<ConversationNo>,
    ) -> Result<(), Error> {
        match self.publish_chunks(broadcast, pending, batch).await {
            Ok(()) => return Ok(()),
            Err(peer::Error::Refused(_) | peer::Error::KeyTaken | peer::Error::Broken(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (mut accepted, mut refused, mut broken) = (false, Vec::new(), None);
        for chunk in batch {
            if blocked.contains(&pending[chunk.row].no) {
                continue;
            }
            match self.publish_chunks(broadcast, pending, slice::from_ref(chunk)).await {
                Ok(()) => accepted = true,
                Err(peer::Error::Away(error)) => return Err(peer::Error::Away(error).into()),
                Err(error) => {
                    blocked.insert(pending[chunk.row].no);
                    refused.push((chunk.row, error.to_string(), matches!(error, peer::Error::KeyTaken)));
                    if matches!(error, peer::Error::Broken(_)) {
                        broken = Some(error);
                    }
                }
            }
        }
        if let Some(error) = broken.filter(|_| !accepted) {
            // Broadcast accepted no row at all, so these rows are not at fault.
            return Err(error.into());
        }
        for (row, reason, key_taken) in refused {
            self.record_refusal(&pending[row], in_tails[row], &reason, key_taken).await?;
        }
        Ok(())
    }

    /// Publishes chunks in one call, each in the trace in which its messages were appended.
    async fn publish_chunks(
        &self,
        broadcast: &Broadcast,
        pending: &[PendingRange],
        chunks: &[RowChunk],
    ) -> Result<(), peer::Error> {
        let spans: Vec<Span> = chunks.iter().map(|chunk| span(pending[chunk.row].trace_parent)).collect();
        let mut messages = Vec::new();
        for (chunk, span) in chunks.iter().zip(&spans) {
            let row = &pending[chunk.row];
            let (key, trace_parent) = (row.publish_key, TraceParent::of(span).or(row.trace_parent));
            let outgoing = |message| OutgoingMessage { message, key, trace_parent };
            messages.extend(chunk.messages.iter().map(outgoing));
        }
        broadcast.publish(&messages).await?;
        self.metrics.record_published(messages.len());
        Ok(())
    }

    /// Records that broadcast refused a row, and parks the row after the last allowed refusal.
    ///
    /// Does not record it while a tail lacks the messages: a parked row would never repair the
    /// tail.
    async fn record_refusal(
        &self,
        row: &PendingRange,
        in_tail: bool,
        reason: &str,
        key_taken: bool,
    ) -> Result<(), Error> {
        self.metrics.refusals.increment(1);
        let (conversation, first, last) = (row.conversation.as_str(), row.first_seq, row.last_seq);
        if key_taken {
            tracing::warn!(row = row.id, conversation, first, last, reason, "publishing again under another key");
        }
        if in_tail && self.store.outbox.record_refusal(row.id, reason, key_taken, self.park_after).await? {
            tracing::error!(
                row = row.id,
                conversation,
                first,
                last,
                reason,
                "outbox row parked: broadcast refused its messages too often, so they are not published; unpark the \
                 row once the cause is removed"
            );
        }
        Ok(())
    }

    /// Deletes the rows whose messages the tails and broadcast have. Returns true if there may be
    /// more.
    async fn finish(&self, pending: &[PendingRange], in_tails: &[bool], published: &[bool]) -> Result<bool, Error> {
        let rows = || pending.iter().zip(in_tails.iter().zip(published));
        let done: Vec<i64> =
            rows().filter(|(_, (in_tail, published))| **in_tail && **published).map(|(row, _)| row.id).collect();
        let only_published: Vec<i64> = rows()
            .filter(|(row, (in_tail, published))| !**in_tail && **published && !row.published)
            .map(|(row, _)| row.id)
            .collect();
        if self.broadcast.is_some() && !only_published.is_empty() {
            self.store.outbox.mark_published(&only_published).await?;
        }
        fail::fail_point!("history::relay_after_mark");
        self.store.outbox.delete(&done).await?;
        Ok(i64::try_from(done.len()).is_ok_and(|rows| rows >= SHARD_ROWS))
    }
}

/// Starts a span for the publication of one row, as a child of the append. Returns a disabled span
/// if there is no trace or no exporter.
fn span(trace_parent: Option<TraceParent>) -> Span {
    let Some(trace_parent) = trace_parent.filter(|_| exporting()) else { return Span::none() };
    let span = tracing::info_span!(parent: None, "publish", otel.kind = "producer");
    trace_parent.adopt(&span);
    span
}

fn range(row: &PendingRange) -> SeqRange {
    SeqRange { no: row.no, first_seq: row.first_seq, last_seq: row.last_seq }
}
