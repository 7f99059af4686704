//! Locks for people.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Held, TimedOut};
use tidings_proto::lock::{Holder, Lock};

use crate::shown::{duration as time, render, table};

/// A lock that somebody else has.
#[derive(Debug)]
pub(crate) struct Blocked {
    name: String,
    blocker: Option<Holder>,
    what_else: String,
}

impl Blocked {
    /// It was not waited for.
    pub(super) fn held(name: String, held: Held) -> Self {
        let what_else = match held.waiting {
            0 => String::new(),
            1 => "; 1 waits for it".to_owned(),
            waiting => format!("; {waiting} wait for it"),
        };
        Self { name, blocker: held.blockers.into_iter().next(), what_else }
    }

    /// It was waited for in vain.
    pub(super) fn timed_out(name: String, wait: Duration, late: TimedOut) -> Self {
        let place = match late.position {
            0 => String::new(),
            position => format!(" as number {position} in the queue"),
        };
        let what_else = format!("; it was waited for {}{place}", humantime::format_duration(wait));
        Self { name, blocker: late.blockers.into_iter().next(), what_else }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, blocker, what_else } = self;
        let Some(Holder { owner, token, held_for, remaining }) = blocker else {
            return write!(f, "{name} is not free{what_else}");
        };
        let (held_for, remaining) = (time(*held_for), time(*remaining));
        write!(f, "{name} is held by {owner} (token {token}) for {held_for}, {remaining} left{what_else}")
    }
}

/// What was granted, a line each.
pub(super) fn grant(grant: &Granted) -> String {
    let mut table = table();
    table.add_row(["token", &grant.token.to_string()]);
    table.add_row(["lease_id", &grant.lease_id]);
    table.add_row(["lease", &time(grant.lease)]);
    render(table)
}

/// Who holds a lock and who waits for it.
pub(super) fn lock(lock: &Lock) -> String {
    let mut rows = table();
    for Holder { owner, token, held_for, remaining } in &lock.holders {
        rows.add_row(["holds", owner, &time(*held_for), &format!("token {token}, {} left", time(*remaining))]);
    }
    for waiter in &lock.waiters {
        rows.add_row(["waits", &waiter.owner, &time(waiter.waited), ""]);
    }
    let mut text = match rows.row_count() {
        0 => format!("{} is free", lock.name),
        _ => render(rows),
    };
    let shown = i32::try_from(lock.waiters.len()).unwrap_or(i32::MAX);
    if lock.waiter_count > shown {
        let _ = write!(text, "\nand {} more wait", lock.waiter_count - shown);
    }
    if lock.quarantine.is_some() {
        let _ = write!(text, "\nnobody is granted anything for {}: Redis lost its data", time(lock.quarantine));
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
    fn who_has_it_is_said_in_a_sentence() {
        let held = Held { blockers: vec![holder()], waiting: 2 };
        let late = TimedOut { blockers: vec![holder()], position: 3 };

        assert_eq!(
            Blocked::held("orders/42".into(), held).to_string(),
            "orders/42 is held by billing-1 (token 7) for 1m 3s, 9s left; 2 wait for it"
        );
        assert_eq!(
            Blocked::timed_out("orders/42".into(), Duration::from_secs(5), late).to_string(),
            "orders/42 is held by billing-1 (token 7) for 1m 3s, 9s left; it was waited for 5s as number 3 in the queue"
        );
    }

    #[test]
    fn a_lock_that_is_just_handed_on_has_no_holder_to_name() {
        let blocked = Blocked::timed_out("orders/42".into(), Duration::from_secs(5), TimedOut::default());

        assert_eq!(blocked.to_string(), "orders/42 is not free; it was waited for 5s");
    }

    #[test]
    fn holders_and_waiters_have_a_line_each() {
        let waiter = |owner: &str| Waiter { owner: owner.into(), waited: Some(seconds(4)) };
        let waiters = vec![waiter("billing-2"), waiter("billing-3")];
        let shown = lock(&Lock { holders: vec![holder()], waiters, waiter_count: 5, ..Default::default() });

        let lines: Vec<_> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["holds billing-1 1m 3s token 7, 9s left", "waits billing-2 4s", "waits billing-3 4s", "and 3 more wait"]
        );
    }

    #[test]
    fn a_free_lock_and_a_quarantine_are_said() {
        let quarantined = Lock { name: "orders/42".into(), quarantine: Some(seconds(8)), ..Default::default() };

        assert_eq!(lock(&quarantined), "orders/42 is free\nnobody is granted anything for 8s: Redis lost its data");
    }
}
