//! Renders locks as text.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Held, TimedOut};
use tidings_proto::lock::{Holder, Lock};

use crate::display::{duration as time, render, table};

/// A lock that could not be acquired, with its holder.
#[derive(Debug)]
pub(crate) struct LockBlocked {
    name: String,
    blocker: Option<Holder>,
    detail: String,
}

impl LockBlocked {
    /// Creates the result of an acquire without a wait.
    pub(super) fn held(name: String, held: Held) -> Self {
        let detail = match held.waiting {
            0 => String::new(),
            1 => "; 1 waiter".to_owned(),
            waiting => format!("; {waiting} waiters"),
        };
        Self { name, blocker: held.blockers.into_iter().next(), detail }
    }

    /// Creates the result of an acquire whose wait has timed out.
    pub(super) fn timed_out(name: String, wait: Duration, timed_out: TimedOut) -> Self {
        let position = match timed_out.position {
            0 => String::new(),
            position => format!(" at position {position} of the wait queue"),
        };
        let detail = format!("; timed out after {}{position}", humantime::format_duration(wait));
        Self { name, blocker: timed_out.blockers.into_iter().next(), detail }
    }
}

impl fmt::Display for LockBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, blocker, detail } = self;
        let Some(Holder { owner, token, held_for, remaining }) = blocker else {
            return write!(f, "{name} is not free{detail}");
        };
        let (held_for, remaining) = (time(*held_for), time(*remaining));
        write!(f, "{name} is held by {owner} (token {token}) for {held_for}, {remaining} left{detail}")
    }
}

/// Renders a grant, one field per line.
pub(super) fn grant(grant: &Granted) -> String {
    let mut table = table();
    table.add_row(["token", &grant.token.to_string()]);
    table.add_row(["lease_id", &grant.lease_id]);
    table.add_row(["lease", &time(grant.lease)]);
    render(table)
}

/// Renders the holder of a lock and its waiters, one per line.
pub(super) fn lock(lock: &Lock) -> String {
    let mut rows = table();
    for Holder { owner, token, held_for, remaining } in &lock.holders {
        rows.add_row(["holder", owner, &time(*held_for), &format!("token {token}, {} left", time(*remaining))]);
    }
    for waiter in &lock.waiters {
        rows.add_row(["waiter", &waiter.owner, &time(waiter.waited), ""]);
    }
    let mut text = match rows.row_count() {
        0 => format!("{} is free", lock.name),
        _ => render(rows),
    };
    let shown = i32::try_from(lock.waiters.len()).unwrap_or(i32::MAX);
    if lock.waiter_count > shown {
        let _ = write!(text, "\nand {} more waiters", lock.waiter_count - shown);
    }
    if lock.quarantine.is_some() {
        let _ = write!(text, "\nquarantine: no grants for {}, Redis lost its data", time(lock.quarantine));
    }
    text
}

#[cfg(test)]
mod tests {
    use tidings_proto::lock::Waiter;

    use super::*;

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn holder() -> Holder {
        Holder { owner: "billing-1".into(), token: 7, held_for: Some(seconds(63)), remaining: Some(seconds(9)) }
    }

    #[test]
    fn a_blocked_lock_names_its_holder() {
        let held = Held { blockers: vec![holder()], waiting: 2 };
        let timed_out = TimedOut { blockers: vec![holder()], position: 3 };

        assert_eq!(
            LockBlocked::held("orders/42".into(), held).to_string(),
            "orders/42 is held by billing-1 (token 7) for 1m 3s, 9s left; 2 waiters"
        );
        assert_eq!(
            LockBlocked::timed_out("orders/42".into(), Duration::from_secs(5), timed_out).to_string(),
            "orders/42 is held by billing-1 (token 7) for 1m 3s, 9s left; timed out after 5s at position 3 of the wait queue"
        );
    }

    #[test]
    fn a_lock_that_is_being_handed_over_has_no_holder_to_name() {
        let blocked = LockBlocked::timed_out("orders/42".into(), Duration::from_secs(5), TimedOut::default());

        assert_eq!(blocked.to_string(), "orders/42 is not free; timed out after 5s");
    }

    #[test]
    fn holders_and_waiters_have_a_line_each() {
        let waiter = |owner: &str| Waiter { owner: owner.into(), waited: Some(seconds(4)) };
        let waiters = vec![waiter("billing-2"), waiter("billing-3")];
        let shown = lock(&Lock { holders: vec![holder()], waiters, waiter_count: 5, ..Default::default() });

        let lines: Vec<_> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "holder billing-1 1m 3s token 7, 9s left",
                "waiter billing-2 4s",
                "waiter billing-3 4s",
                "and 3 more waiters"
            ]
        );
    }

    #[test]
    fn a_free_lock_and_a_quarantine_are_shown() {
        let quarantined = Lock { name: "orders/42".into(), quarantine: Some(seconds(8)), ..Default::default() };

        assert_eq!(lock(&quarantined), "orders/42 is free\nquarantine: no grants for 8s, Redis lost its data");
    }
}
