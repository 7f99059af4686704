//! What publishers were told, and the one rule by which every subscriber is judged: each acknowledged message once and
//! in order, or told exactly where it was not. Exact or said, never silence.

use std::collections::HashMap;

/// What a subscriber was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Message { epoch: String, offset: i64, text: String },
    CaughtUp { epoch: String, head: i64 },
    Gap { epoch: String, first: i64, last: i64 },
    Reset { epoch: String, head: i64 },
}

/// What a subscriber was told of one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// How many messages had been acknowledged when it began.
    pub(crate) since: usize,
    /// The position it asked for; `None` if it left that to the service.
    pub(crate) start: Option<(String, i64)>,
    /// In order.
    pub(crate) told: Vec<Told>,
}

impl Account {
    /// Up to where the channel was delivered or told.
    pub(crate) fn position(&self) -> (String, i64) {
        match self.told.last() {
            Some(Told::Message { epoch, offset, .. }) => (epoch.clone(), *offset),
            Some(Told::CaughtUp { epoch, head }) => (epoch.clone(), *head),
            Some(Told::Gap { epoch, last, .. }) => (epoch.clone(), *last),
            Some(Told::Reset { epoch, .. }) => (epoch.clone(), 0),
            None => self.start.clone().unwrap_or_default(),
        }
    }
}

/// A message that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) epoch: String,
    pub(crate) offset: i64,
    pub(crate) text: String,
}

/// What was acknowledged of one channel, in order: one publisher, who waits for each answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) acks: Vec<Ack>,
}

/// A stretch of one epoch that a subscriber went through.
#[derive(Debug)]
struct Stretch {
    epoch: String,
    /// Whether a `Reset` said that something may be missing before it.
    said: bool,
    /// The last offset that was delivered or told.
    last: i64,
    texts: HashMap<i64, String>,
}

impl Ledger {
    pub(crate) fn note(&mut self, epoch: &str, offset: i64, text: &str) {
        self.acks.push(Ack { epoch: epoch.to_owned(), offset, text: text.to_owned() });
    }

    /// Judges what a subscriber was told of the channel from its beginning to its head, `end`.
    pub(crate) fn judge(&self, account: &Account, end: (&str, i64)) -> Result<(), String> {
        let stretches = walk(account)?;
        let last = stretches.last().ok_or("nothing was told")?;
        if (last.epoch.as_str(), last.last) != end {
            return Err(format!("ends at {}:{}, the channel at {end:?}", last.epoch, last.last));
        }
        let order = self.order();
        for (place, ack) in self.acks.iter().enumerate() {
            // What was lost before the subscriber began is none of its business.
            let seen = stretches.iter().any(|stretch| stretch.epoch == ack.epoch);
            if seen || place >= account.since {
                owed(&stretches, &order, ack)?;
            }
        }
        Ok(())
    }

    /// When each epoch was acknowledged first.
    fn order(&self) -> HashMap<&str, usize> {
        let mut order = HashMap::new();
        for (place, ack) in self.acks.iter().enumerate() {
            order.entry(ack.epoch.as_str()).or_insert(place);
        }
        order
    }
}

/// Whether a message that was acknowledged was delivered, or said to be missing, or is older than what was asked for.
fn owed(stretches: &[Stretch], order: &HashMap<&str, usize>, ack: &Ack) -> Result<(), String> {
    let missing = |why: &str| Err(format!("{}:{} {}: {why}", ack.epoch, ack.offset, ack.text));
    let here = stretches.iter().position(|stretch| stretch.epoch == ack.epoch);
    if let Some(place) = here {
        let stretch = &stretches[place];
        return match stretch.texts.get(&ack.offset) {
            Some(text) if *text == ack.text => Ok(()),
            Some(text) => missing(&format!("delivered as {text}")),
            None if ack.offset <= stretch.last => Ok(()), // walked over: told to be missing, or not asked for
            None if stretches.get(place + 1).is_some_and(|next| next.said) => Ok(()),
            None => missing("neither delivered nor said to be missing"),
        };
    }
    // An epoch that the subscriber never saw: the next that it did see must have begun with a `Reset`, or come after an
    // empty one that did.
    let when = order[ack.epoch.as_str()];
    let after = stretches.iter().position(|stretch| order.get(stretch.epoch.as_str()).is_some_and(|seen| *seen > when));
    match after {
        Some(0) => Ok(()), // before it began
        Some(place) if stretches[place].said => Ok(()),
        Some(place) if stretches[place - 1].epoch.is_empty() && stretches[place - 1].said => Ok(()),
        _ if stretches.last().is_some_and(|last| last.epoch.is_empty() && last.said) => Ok(()),
        _ => missing("its whole epoch was lost in silence"),
    }
}

/// Goes through what was told, which must follow without a hole.
fn walk(account: &Account) -> Result<Vec<Stretch>, String> {
    let mut stretches: Vec<Stretch> = Vec::new();
    if let Some((epoch, offset)) = &account.start {
        stretches.push(Stretch::begin(epoch, *offset, false));
    }
    let mut caught_up = false;
    for told in &account.told {
        match told {
            Told::Message { epoch, offset, text } => {
                let stretch = reach(&mut stretches, epoch, *offset)?;
                stretch.last = *offset;
                stretch.texts.insert(*offset, text.clone());
            }
            Told::Gap { epoch, first, last } => {
                if first > last {
                    return Err(format!("an empty gap: {told:?}"));
                }
                reach(&mut stretches, epoch, *first)?.last = *last;
            }
            Told::Reset { epoch, .. } => {
                if stretches.iter().any(|stretch| stretch.epoch == *epoch && !epoch.is_empty()) {
                    return Err(format!("back to an epoch that was left: {told:?}"));
                }
                stretches.push(Stretch::begin(epoch, 0, true));
            }
            Told::CaughtUp { epoch, head } => {
                let stretch = reach(&mut stretches, epoch, head + 1)?;
                if std::mem::replace(&mut caught_up, true) {
                    return Err(format!("caught up twice, at {}", stretch.last));
                }
            }
        }
    }
    if !caught_up {
        return Err("never caught up".to_owned());
    }
    Ok(stretches)
}

/// The stretch in which this offset is the next.
fn reach<'a>(stretches: &'a mut Vec<Stretch>, epoch: &str, offset: i64) -> Result<&'a mut Stretch, String> {
    match stretches.last() {
        // Where it began is known by the first thing it was told.
        None => stretches.push(Stretch::begin(epoch, offset - 1, false)),
        // From no epoch to the first one.
        Some(last) if last.epoch.is_empty() && !epoch.is_empty() && offset == 1 => {
            stretches.push(Stretch::begin(epoch, 0, false));
        }
        Some(last) if last.epoch == epoch && last.last + 1 == offset => {}
        Some(last) => return Err(format!("at {}:{} came {epoch}:{offset}", last.epoch, last.last)),
    }
    stretches.last_mut().ok_or_else(|| "unreachable".to_owned())
}

impl Stretch {
    fn begin(epoch: &str, before: i64, said: bool) -> Self {
        Self { epoch: epoch.to_owned(), said, last: before, texts: HashMap::new() }
    }
}
