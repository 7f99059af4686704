//! History checker: validates the holds of all clients, as the clients saw them.

use tokio::time::Instant;

use crate::support::client::HeldLock;

/// Time in which a client relied on its hold.
#[derive(Clone, Debug)]
pub(super) struct HoldInterval {
    pub(super) name: String,
    pub(super) token: i64,
    /// Time of the response with the grant.
    pub(super) from: Instant,
    /// Deadline of the hold, or the time before its release was sent.
    pub(super) until: Instant,
}

impl HoldInterval {
    /// Starts an interval now.
    pub(super) fn start(hold: &HeldLock) -> Self {
        Self { name: hold.name.clone(), token: hold.token, from: Instant::now(), until: hold.deadline }
    }

    /// Ends the interval now, unless its deadline was earlier.
    pub(super) fn end(&mut self) {
        self.until = self.until.min(Instant::now());
    }
}

/// Checks that the intervals of a lock, in the order of their tokens, do not overlap. An interval
/// whose response arrived after its deadline is ignored.
pub(super) fn check(history: &[HoldInterval]) -> Result<(), String> {
    let mut intervals: Vec<&HoldInterval> = history.iter().filter(|interval| interval.from < interval.until).collect();
    intervals.sort_by(|one, other| (&one.name, one.token, one.from).cmp(&(&other.name, other.token, other.from)));
    for pair in intervals.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if before.name != after.name {
            continue;
        }
        if before.token == after.token {
            return Err(format!("token {} of {} was granted twice", before.token, before.name));
        }
        if after.from < before.until {
            let early = before.until - after.from;
            return Err(format!(
                "{}: token {} was granted {early:?} before the end of the hold with token {}, while it was valid",
                after.name, after.token, before.token
            ));
        }
    }
    Ok(())
}
