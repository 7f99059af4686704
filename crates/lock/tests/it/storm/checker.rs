//! Checks a history of grants, as those who were granted them know it.

use tokio::time::Instant;

use crate::support::client::Hold;

/// Somebody who believed that he held a lock.
#[derive(Clone, Debug)]
pub(super) struct Belief {
    pub(super) name: String,
    pub(super) token: i64,
    /// When he heard of it.
    pub(super) from: Instant,
    /// When he stopped: at the deadline that he computed, or before he asked for the release.
    pub(super) until: Instant,
}

impl Belief {
    /// A belief that begins now.
    pub(super) fn begin(hold: &Hold) -> Self {
        Self { name: hold.name.clone(), token: hold.token, from: Instant::now(), until: hold.deadline }
    }

    /// The holder stops to believe, if he has not before.
    pub(super) fn end(&mut self) {
        self.until = self.until.min(Instant::now());
    }
}

/// In the order of their tokens, believers of one lock follow each other: nobody begins before the one before has stopped.
/// A belief that came too late was none.
pub(super) fn check(history: &[Belief]) -> Result<(), String> {
    let mut believers: Vec<&Belief> = history.iter().filter(|belief| belief.from < belief.until).collect();
    believers.sort_by(|one, other| (&one.name, one.token, one.from).cmp(&(&other.name, other.token, other.from)));
    for pair in believers.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if before.name != after.name {
            continue;
        }
        if before.token == after.token {
            return Err(format!("token {} of {} was given twice", before.token, before.name));
        }
        if after.from < before.until {
            let early = before.until - after.from;
            return Err(format!(
                "{} was granted {} {early:?} early, while {} was believed in",
                after.name, after.token, before.token
            ));
        }
    }
    Ok(())
}
