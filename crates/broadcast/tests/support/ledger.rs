//! The history checker: a ledger of acknowledged publishes, and the rule that every subscriber must
//! meet. A subscriber gets each acknowledged message once and in order, or a `Gap` or `Reset`
//! exactly where messages are missing. No message is lost silently.

use std::collections::HashMap;

/// One event that a subscriber received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReceivedEvent {
    Message { epoch: String, offset: i64, text: String },
    CaughtUp { epoch: String, head: i64 },
    Gap { epoch: String, first: i64, last: i64 },
    Reset { epoch: String, head: i64 },
}

/// The events that a subscriber received for one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript {
    /// Number of publishes acknowledged before the subscription.
    pub(crate) acked_before: usize,
    /// The requested position; `None` if the service chose it.
    pub(crate) start: Option<(String, i64)>,
    /// Events in order of arrival.
    pub(crate) events: Vec<ReceivedEvent>,
}

impl Transcript {
    /// Returns the position up to which messages were delivered or reported missing.
    pub(crate) fn position(&self) -> (String, i64) {
        match self.events.last() {
            Some(ReceivedEvent::Message { epoch, offset, .. }) => (epoch.clone(), *offset),
            Some(ReceivedEvent::CaughtUp { epoch, head }) => (epoch.clone(), *head),
            Some(ReceivedEvent::Gap { epoch, last, .. }) => (epoch.clone(), *last),
            Some(ReceivedEvent::Reset { epoch, .. }) => (epoch.clone(), 0),
            None => self.start.clone().unwrap_or_default(),
        }
    }
}

/// An acknowledged publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishAck {
    pub(crate) epoch: String,
    pub(crate) offset: i64,
    pub(crate) text: String,
}

/// The acknowledged publishes of one channel, in order: one publisher, which waits for each reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishLedger {
    pub(crate) acks: Vec<PublishAck>,
}

/// The part of one epoch that a subscriber passed through.
#[derive(Debug)]
struct EpochSpan {
    epoch: String,
    /// True if a `Reset` reported that messages before it may be missing.
    after_reset: bool,
    /// The last offset that was delivered or reported missing.
    last: i64,
    texts: HashMap<i64, String>,
}

impl PublishLedger {
    pub(crate) fn record(&mut self, epoch: &str, offset: i64, text: &str) {
        self.acks.push(PublishAck { epoch: epoch.to_owned(), offset, text: text.to_owned() });
    }

    /// Checks the transcript of a subscriber, from its start to the head of the channel, `end`.
    pub(crate) fn check(&self, transcript: &Transcript, end: (&str, i64)) -> Result<(), String> {
        let spans = spans(transcript)?;
        let last = spans.last().ok_or("no events were received")?;
        if (last.epoch.as_str(), last.last) != end {
            return Err(format!("ends at {}:{}, the channel at {end:?}", last.epoch, last.last));
        }
        let order = self.epoch_order();
        for (index, ack) in self.acks.iter().enumerate() {
            // A message lost before the subscription began is not the subscriber's.
            let seen = spans.iter().any(|span| span.epoch == ack.epoch);
            if seen || index >= transcript.acked_before {
                check_ack(&spans, &order, ack)?;
            }
        }
        Ok(())
    }

    /// Returns the index of the first acknowledged publish in each epoch.
    fn epoch_order(&self) -> HashMap<&str, usize> {
        let mut order = HashMap::new();
        for (index, ack) in self.acks.iter().enumerate() {
            order.entry(ack.epoch.as_str()).or_insert(index);
        }
        order
    }
}

/// Checks that an acknowledged message was delivered, reported missing, or is older than the start.
fn check_ack(spans: &[EpochSpan], order: &HashMap<&str, usize>, ack: &PublishAck) -> Result<(), String> {
    let failure = |why: &str| Err(format!("{}:{} {}: {why}", ack.epoch, ack.offset, ack.text));
    let own = spans.iter().position(|span| span.epoch == ack.epoch);
    if let Some(index) = own {
        let span = &spans[index];
        return match span.texts.get(&ack.offset) {
            Some(text) if *text == ack.text => Ok(()),
            Some(text) => failure(&format!("delivered as {text}")),
            None if ack.offset <= span.last => Ok(()), // in a gap, or before the start
            None if spans.get(index + 1).is_some_and(|next| next.after_reset) => Ok(()),
            None => failure("neither delivered nor reported missing"),
        };
    }
    // The subscriber never saw the epoch. The next epoch that it saw must have begun with a
    // `Reset`, or must follow a time without an epoch that did.
    let first_ack = order[ack.epoch.as_str()];
    let next = spans.iter().position(|span| order.get(span.epoch.as_str()).is_some_and(|seen| *seen > first_ack));
    match next {
        Some(0) => Ok(()), // before the start
        Some(index) if spans[index].after_reset => Ok(()),
        Some(index) if spans[index - 1].epoch.is_empty() && spans[index - 1].after_reset => Ok(()),
        _ if spans.last().is_some_and(|last| last.epoch.is_empty() && last.after_reset) => Ok(()),
        _ => failure("its whole epoch was lost silently"),
    }
}

/// Splits a transcript into spans. Its events must follow each other without a hole.
fn spans(transcript: &Transcript) -> Result<Vec<EpochSpan>, String> {
    let mut spans: Vec<EpochSpan> = Vec::new();
    if let Some((epoch, offset)) = &transcript.start {
        spans.push(EpochSpan::begin(epoch, *offset, false));
    }
    let mut caught_up = false;
    for event in &transcript.events {
        match event {
            ReceivedEvent::Message { epoch, offset, text } => {
                let span = span_with_next(&mut spans, epoch, *offset)?;
                span.last = *offset;
                span.texts.insert(*offset, text.clone());
            }
            ReceivedEvent::Gap { epoch, first, last } => {
                if first > last {
                    return Err(format!("an empty gap: {event:?}"));
                }
                span_with_next(&mut spans, epoch, *first)?.last = *last;
            }
            ReceivedEvent::Reset { epoch, .. } => {
                if spans.iter().any(|span| span.epoch == *epoch && !epoch.is_empty()) {
                    return Err(format!("return to a past epoch: {event:?}"));
                }
                spans.push(EpochSpan::begin(epoch, 0, true));
            }
            ReceivedEvent::CaughtUp { epoch, head } => {
                let span = span_with_next(&mut spans, epoch, head + 1)?;
                if std::mem::replace(&mut caught_up, true) {
                    return Err(format!("caught up twice, at {}", span.last));
                }
            }
        }
    }
    if !caught_up {
        return Err("never caught up".to_owned());
    }
    Ok(spans)
}

/// Returns the span in which `offset` is the next.
fn span_with_next<'a>(spans: &'a mut Vec<EpochSpan>, epoch: &str, offset: i64) -> Result<&'a mut EpochSpan, String> {
    match spans.last() {
        // The first event shows the start that the service chose.
        None => spans.push(EpochSpan::begin(epoch, offset - 1, false)),
        // From no epoch to the first one.
        Some(last) if last.epoch.is_empty() && !epoch.is_empty() && offset == 1 => {
            spans.push(EpochSpan::begin(epoch, 0, false));
        }
        Some(last) if last.epoch == epoch && last.last + 1 == offset => {}
        Some(last) => return Err(format!("after {}:{} came {epoch}:{offset}", last.epoch, last.last)),
    }
    spans.last_mut().ok_or_else(|| "unreachable".to_owned())
}

impl EpochSpan {
    fn begin(epoch: &str, before: i64, after_reset: bool) -> Self {
        Self { epoch: epoch.to_owned(), after_reset, last: before, texts: HashMap::new() }
    }
}
