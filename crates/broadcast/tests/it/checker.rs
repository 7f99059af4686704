//! The rule by which every subscriber is judged, judged itself: by accounts with a loss, a double, a swap in them.

use crate::support::ledger::{Account, Ledger, Told};

fn message(epoch: &str, offset: i64) -> Told {
    Told::Message { epoch: epoch.to_owned(), offset, text: format!("{epoch}{offset}") }
}

fn reset(epoch: &str) -> Told {
    Told::Reset { epoch: epoch.to_owned(), head: 0 }
}

fn gap(epoch: &str, first: i64, last: i64) -> Told {
    Told::Gap { epoch: epoch.to_owned(), first, last }
}

fn caught_up(epoch: &str, head: i64) -> Told {
    Told::CaughtUp { epoch: epoch.to_owned(), head }
}

/// Epoch a has 1 to 9, epoch b 1 to 3, epoch c 1 to 5.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (epoch, count) in [("a", 9), ("b", 3), ("c", 5)] {
        for offset in 1..=count {
            ledger.note(epoch, offset, &format!("{epoch}{offset}"));
        }
    }
    ledger
}

/// One that is exact: it began behind a4, was told a gap, and went through all epochs.
fn exact() -> Vec<Told> {
    let mut told = vec![caught_up("a", 4), message("a", 5), gap("a", 6, 7), message("a", 8)];
    told.extend([reset("b"), message("b", 1), message("b", 2), reset("c")]);
    told.extend((1..=5).map(|offset| message("c", offset)));
    told
}

fn judge(told: Vec<Told>) -> Result<(), String> {
    ledger().judge(&Account { since: 4, start: None, told }, ("c", 5))
}

#[test]
fn an_exact_account_is_accepted() {
    assert_eq!(judge(exact()), Ok(()));
}

#[test]
fn a_loss_is_found_wherever_it_is() {
    for place in 0..exact().len() {
        let mut told = exact();
        let lost = told.remove(place);
        let last_of_its_epoch = lost == message("a", 8) || lost == message("b", 2);
        let judged = judge(told);
        // What was not delivered before a `Reset` is said to be missing by it.
        assert_eq!(judged.is_ok(), last_of_its_epoch, "without {lost:?}: {judged:?}");
    }
}

#[test]
fn a_double_is_found_wherever_it_is() {
    for place in 0..exact().len() {
        let mut told = exact();
        told.insert(place, told[place].clone());
        judge(told).unwrap_err();
    }
}

#[test]
fn a_swap_is_found_wherever_it_is() {
    for place in 1..exact().len() {
        let mut told = exact();
        told.swap(place - 1, place);
        let beginning = place == 1; // a5 before its caught up: it began there, and caught up later
        let judged = judge(told);
        assert!(judged.is_err() || beginning && judged.is_ok(), "{place}");
    }
}

#[test]
fn another_content_another_end_and_a_whole_epoch_lost_in_silence_are_found() {
    let mut other = exact();
    other[1] = Told::Message { epoch: "a".to_owned(), offset: 5, text: "other".to_owned() };
    judge(other).unwrap_err();

    let mut more = exact();
    more.push(message("c", 6));
    judge(more).unwrap_err();

    let without_b: Vec<_> = exact().into_iter().filter(|told| !format!("{told:?}").contains("\"b\"")).collect();
    judge(without_b).unwrap(); // the reset to c says so

    let from_nothing = |told: Vec<Told>| {
        let account = Account { since: 0, start: Some((String::new(), 0)), told };
        let mut ledger = ledger();
        ledger.acks.retain(|ack| ack.epoch != "a");
        ledger.judge(&account, ("c", 5))
    };
    let c = (1..=5).map(|offset| message("c", offset));
    let silent: Vec<_> = [caught_up("", 0)].into_iter().chain(c.clone()).collect();
    from_nothing(silent).unwrap_err();
    let said: Vec<_> = [caught_up("", 0), reset("c")].into_iter().chain(c).collect();
    from_nothing(said).unwrap();
}
