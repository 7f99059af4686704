//! The relay: brings what was committed to the tails and to broadcast, and deletes its row only when both have it.
//!
//! Rows of one conversation are relayed in their order, so that its messages are published in theirs. Killed between any
//! two lines it loses nothing: the row is still there, and what is published again is recognised, by broadcast for as long
//! as it remembers the key, by a receiver for ever, by (seq, edit_version).

use std::collections::HashSet;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tidings_trace::{TraceParent, exporting};
use tokio::sync::{Mutex, Notify};
use tracing::Span;
use uuid::Uuid;

use super::Error;
use crate::cache::Tails;
use crate::model::{ConversationNo, Message, Shard};
use crate::numbers::Numbers;
use crate::peer::{self, Broadcast};
use crate::store::{Backlog, Pending, Range, Store};

/// Rows of each shard that one step takes.
const SHARD_ROWS: i64 = 32;
/// How long a shard stays with a worker that says nothing more: as late as this others take over from one that died.
const LEASE: Duration = Duration::from_secs(2);
/// How often a worker says that it lives.
const RENEWAL: Duration = Duration::from_millis(500);
/// How long a worker that can not do its work leaves it to others: until each of them has looked.
const PAUSE: Duration = Duration::from_millis(1500);
/// Messages published by one call: of the largest legal size they are just below what a request may have.
const BATCH_MESSAGES: usize = 100;

/// The relay of one instance.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    tails: Arc<Tails>,
    broadcast: Option<Broadcast>,
    park_after: i32,
    worker: String,
    leased: Mutex<Leased>,
    ours: AtomicU32,
    news: Notify,
    numbers: Arc<Numbers>,
}

/// The shards that are ours.
#[derive(Debug, Default)]
struct Leased {
    shards: Vec<Shard>,
    /// Whether there are other workers.
    divided: bool,
    /// When to ask again; `None`: now.
    ask: Option<Instant>,
}

impl Leased {
    /// Whether it is time to ask again.
    fn is_due(&self) -> bool {
        self.ask.is_none_or(|ask| ask <= Instant::now())
    }
}

/// Messages of one row that are published together.
#[derive(Debug)]
struct Part {
    /// The place of the row among those of the step.
    place: usize,
    messages: Vec<Message>,
    /// Whether the row has no further ones.
    last: bool,
}

/// How far the rows of one step have come, and what stood in the way.
#[derive(Debug)]
struct Outcome {
    done: Vec<bool>,
    failed: Option<Error>,
}

impl Relay {
    /// The relay from one store to its tails and to `broadcast`, if there is one. A row that broadcast has refused
    /// `park_after` times is given up.
    pub fn new(store: Store, tails: Arc<Tails>, broadcast: Option<Broadcast>, park_after: u16) -> Self {
        Self {
            store,
            tails,
            broadcast,
            park_after: park_after.into(),
            worker: Uuid::new_v4().to_string(),
            leased: Mutex::default(),
            ours: AtomicU32::new(0),
            news: Notify::new(),
            numbers: Numbers::new(),
        }
    }

    /// One step: relays the oldest rows of the shards that are ours. Returns whether there may be more.
    ///
    /// If it fails, others may do better, who reach a Redis or a broadcast that we do not: they get the shards.
    pub async fn step(&self) -> Result<bool, Error> {
        let relayed = self.relay().await;
        if relayed.is_err() && self.leased.lock().await.divided {
            self.leave().await;
        }
        relayed
    }

    async fn relay(&self) -> Result<bool, Error> {
        let shards = self.lease().await?;
        let pending = self.store.outbox.pending(&shards, SHARD_ROWS).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        let told = self.tell_tails(&pending).await;
        fail::fail_point!("history::relay_has_told_the_tails");
        let published = self.publish(&pending, &told.done).await;
        fail::fail_point!("history::relay_has_published");
        let more = self.settle(&pending, &told.done, &published.done).await?;
        match told.failed.or(published.failed) {
            Some(error) => Err(error),
            None => Ok(more),
        }
    }

    /// Says that a shard has news. Whether it is ours, is found out here; if it is time to ask whose it is, it may be.
    pub fn hear(&self, shard: Shard) {
        let ours = self.ours.load(Ordering::Relaxed) & (1 << shard.get()) != 0;
        if ours || self.leased.try_lock().is_ok_and(|leased| leased.is_due()) {
            self.news.notify_one();
        }
    }

    /// Waits until a shard of ours has news.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// How much there is to relay, in all shards.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let backlog = self.store.outbox.backlog().await?;
        self.numbers.waits(&backlog);
        Ok(backlog)
    }

    /// Gives up all shards, for a while.
    pub async fn leave(&self) {
        *self.leased.lock().await = Leased { ask: Some(Instant::now() + PAUSE), ..Leased::default() };
        self.ours.store(0, Ordering::Relaxed);
        self.numbers.leases(0);
        if let Err(error) = self.store.shards.leave(&self.worker).await {
            tracing::debug!(%error, "the leases of the relay have to run out");
        }
    }

    /// The shards that are ours: asked for again now and then.
    async fn lease(&self) -> Result<Vec<Shard>, Error> {
        let mut leased = self.leased.lock().await;
        if leased.is_due() {
            let ask = Instant::now() + RENEWAL;
            let (shards, divided) = self.store.shards.lease(&self.worker, LEASE).await?;
            self.ours.store(shards.iter().fold(0, |ours, shard| ours | (1 << shard.get())), Ordering::Relaxed);
            self.numbers.leases(shards.len());
            *leased = Leased { shards, divided, ask: Some(ask) };
        }
        Ok(leased.shards.clone())
    }

    /// Makes sure that the tails know of all rows.
    async fn tell_tails(&self, pending: &[Pending]) -> Outcome {
        let lasts: Vec<_> = pending.iter().map(|row| (row.conversation.clone(), row.last_seq)).collect();
        let mut outcome = match self.tails.reach(&lasts).await {
            Ok(done) => Outcome { done, failed: None },
            Err(error) => return Outcome { done: vec![false; pending.len()], failed: Some(error.into()) },
        };
        for (place, row) in pending.iter().enumerate() {
            if !outcome.done[place] {
                match self.repair(row).await {
                    Ok(()) => outcome.done[place] = true,
                    Err(error) => outcome.failed = Some(error), // holds up no other conversation
                }
            }
        }
        outcome
    }

    /// Gives a tail the messages that it lacks.
    async fn repair(&self, row: &Pending) -> Result<(), Error> {
        let messages = self.store.messages.ranges_for_relay(&[range(row)]).await?.pop().unwrap_or_default();
        self.tails.append(&row.conversation, &messages, None).await?;
        self.numbers.repairs.increment(1);
        Ok(())
    }

    /// Publishes the messages of all rows that broadcast does not have, as they are now.
    ///
    /// A refused row holds up the later ones of its conversation. That broadcast is away is no refusal: the rows wait.
    async fn publish(&self, pending: &[Pending], told: &[bool]) -> Outcome {
        let Some(broadcast) = &self.broadcast else {
            return Outcome { done: vec![true; pending.len()], failed: None };
        };
        let mut outcome = Outcome { done: pending.iter().map(|row| row.published).collect(), failed: None };
        let rows: Vec<usize> = (0..pending.len()).filter(|place| !outcome.done[*place]).collect();
        let ranges: Vec<_> = rows.iter().map(|place| range(&pending[*place])).collect();
        let messages = match self.store.messages.ranges_for_relay(&ranges).await {
            Ok(messages) => messages,
            Err(error) => return Outcome { failed: Some(error.into()), ..outcome },
        };
        let mut held: HashSet<ConversationNo> = HashSet::new();
        for batch in batches(rows, messages) {
            let free: Vec<Part> = batch.into_iter().filter(|part| !held.contains(&pending[part.place].no)).collect();
            if let Err(error) = self.send(broadcast, pending, told, &free, &mut held).await {
                outcome.failed = Some(error);
                return outcome;
            }
            for part in free.iter().filter(|part| part.last) {
                outcome.done[part.place] = !held.contains(&pending[part.place].no);
            }
        }
        outcome
    }

    /// Sends the rows of a batch together, and if that is refused one by one, to find out which is to blame. The
    /// conversations of refused rows are `held`.
    async fn send(
        &self,
        broadcast: &Broadcast,
        pending: &[Pending],
        told: &[bool],
        batch: &[Part],
        held: &mut HashSet<ConversationNo>,
    ) -> Result<(), Error> {
        match self.publish_parts(broadcast, pending, batch).await {
            Ok(()) => return Ok(()),
            Err(peer::Error::Refused(_) | peer::Error::Broken(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (mut accepted, mut blamed, mut broken) = (false, Vec::new(), None);
        for part in batch {
            if held.contains(&pending[part.place].no) {
                continue;
            }
            match self.publish_parts(broadcast, pending, slice::from_ref(part)).await {
                Ok(()) => accepted = true,
                Err(peer::Error::Away(error)) => return Err(peer::Error::Away(error).into()),
                Err(error) => {
                    held.insert(pending[part.place].no);
                    blamed.push((part.place, error.to_string()));
                    if matches!(error, peer::Error::Broken(_)) {
                        broken = Some(error);
                    }
                }
            }
        }
        if let Some(error) = broken.filter(|_| !accepted) {
            return Err(error.into()); // it works for nobody: that is no row's fault
        }
        for (place, reason) in blamed {
            self.blame(&pending[place], told[place], &reason).await?;
        }
        Ok(())
    }

    /// Publishes parts in one call, each in the trace in which its messages were appended.
    async fn publish_parts(
        &self,
        broadcast: &Broadcast,
        pending: &[Pending],
        parts: &[Part],
    ) -> Result<(), peer::Error> {
        let spans: Vec<Span> = parts.iter().map(|part| span(pending[part.place].cause)).collect();
        let mut messages = Vec::new();
        for (part, span) in parts.iter().zip(&spans) {
            let cause = TraceParent::of(span).or(pending[part.place].cause);
            messages.extend(part.messages.iter().map(|message| (message, cause)));
        }
        broadcast.publish(&messages).await?;
        self.numbers.published(messages.len());
        Ok(())
    }

    /// Notes that a row was refused; parks it in the end. But one whose tail has yet to hear of it must not be parked:
    /// nobody would tell the tail.
    async fn blame(&self, row: &Pending, told: bool, reason: &str) -> Result<(), Error> {
        self.numbers.refusals.increment(1);
        if told && self.store.outbox.refused(row.id, reason, self.park_after).await? {
            let (conversation, first, last) = (row.conversation.as_str(), row.first_seq, row.last_seq);
            tracing::error!(row = row.id, conversation, first, last, reason, "parked: messages are not published");
        }
        Ok(())
    }

    /// Deletes the rows that are done with. Returns whether there may be more.
    async fn settle(&self, pending: &[Pending], told: &[bool], published: &[bool]) -> Result<bool, Error> {
        let rows = || pending.iter().zip(told.iter().zip(published));
        let done: Vec<i64> =
            rows().filter(|(_, (told, published))| **told && **published).map(|(row, _)| row.id).collect();
        let half: Vec<i64> = rows()
            .filter(|(row, (told, published))| !**told && **published && !row.published)
            .map(|(row, _)| row.id)
            .collect();
        if self.broadcast.is_some() && !half.is_empty() {
            self.store.outbox.published(&half).await?;
        }
        fail::fail_point!("history::relay_has_marked");
        self.store.outbox.done(&done).await?;
        Ok(i64::try_from(done.len()).is_ok_and(|rows| rows >= SHARD_ROWS))
    }
}

/// A span for what is published of one row, from now until it is dropped: a child of the append. None if nobody gets to see
/// it.
fn span(cause: Option<TraceParent>) -> Span {
    let Some(cause) = cause.filter(|_| exporting()) else { return Span::none() };
    let span = tracing::info_span!(parent: None, "publish", otel.kind = "producer");
    cause.adopt(&span);
    span
}

fn range(row: &Pending) -> Range {
    Range { no: row.no, first_seq: row.first_seq, last_seq: row.last_seq }
}

/// Rows with their messages, as they are sent together. A row of many messages is cut: its parts follow each other.
fn batches(rows: Vec<usize>, messages: Vec<Vec<Message>>) -> Vec<Vec<Part>> {
    let mut batches: Vec<Vec<Part>> = Vec::new();
    let mut room = 0;
    for (place, mut rest) in rows.into_iter().zip(messages) {
        loop {
            if room == 0 {
                batches.push(Vec::new());
                room = BATCH_MESSAGES;
            }
            let further = rest.split_off(room.min(rest.len()));
            room -= rest.len();
            let last = further.is_empty();
            if let Some(batch) = batches.last_mut() {
                batch.push(Part { place, messages: rest, last });
            }
            if last {
                break;
            }
            rest = further;
        }
    }
    batches
}
