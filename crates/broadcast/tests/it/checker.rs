//! Tests of the history checker: it must find a lost, duplicated or swapped event in a transcript.

use crate::support::ledger::{PublishLedger, ReceivedEvent, Transcript};

fn message(epoch: &str, offset: i64) -> ReceivedEvent {
    ReceivedEvent::Message { epoch: epoch.to_owned(), offset, text: format!("{epoch}{offset}") }
}

fn reset(epoch: &str) -> ReceivedEvent {
    ReceivedEvent::Reset { epoch: epoch.to_owned(), head: 0 }
}

fn gap(epoch: &str, first: i64, last: i64) -> ReceivedEvent {
    ReceivedEvent::Gap { epoch: epoch.to_owned(), first, last }
}

fn caught_up(epoch: &str, head: i64) -> ReceivedEvent {
    ReceivedEvent::CaughtUp { epoch: epoch.to_owned(), head }
}

/// Makes a ledger: epoch a has offsets 1 to 9, epoch b 1 to 3, epoch c 1 to 5.
fn ledger() -> PublishLedger {
    let mut ledger = PublishLedger::default();
    for (epoch, count) in [("a", 9), ("b", 3), ("c", 5)] {
        for offset in 1..=count {
            ledger.record(epoch, offset, &format!("{epoch}{offset}"));
        }
    }
    ledger
}

/// Returns valid events: they start behind a4, contain a gap, and pass through all epochs.
fn valid() -> Vec<ReceivedEvent> {
    let mut events = vec![caught_up("a", 4), message("a", 5), gap("a", 6, 7), message("a", 8)];
    events.extend([reset("b"), message("b", 1), message("b", 2), reset("c")]);
    events.extend((1..=5).map(|offset| message("c", offset)));
    events
}

fn check(events: Vec<ReceivedEvent>) -> Result<(), String> {
    ledger().check(&Transcript { acked_before: 4, start: None, events }, ("c", 5))
}

#[test]
fn a_valid_transcript_is_accepted() {
    assert_eq!(check(valid()), Ok(()));
}

#[test]
fn a_lost_event_is_found_at_any_index() {
    for index in 0..valid().len() {
        let mut events = valid();
        let lost = events.remove(index);
        let last_of_its_epoch = lost == message("a", 8) || lost == message("b", 2);
        let checked = check(events);
        // A `Reset` covers messages that were not delivered before it.
        assert_eq!(checked.is_ok(), last_of_its_epoch, "without {lost:?}: {checked:?}");
    }
}

#[test]
fn a_duplicated_event_is_found_at_any_index() {
    for index in 0..valid().len() {
        let mut events = valid();
        events.insert(index, events[index].clone());
        check(events).unwrap_err();
    }
}

#[test]
fn a_swap_of_two_events_is_found_at_any_index() {
    for index in 1..valid().len() {
        let mut events = valid();
        events.swap(index - 1, index);
        let at_start = index == 1; // a5 before its CaughtUp: the stream started there, and caught up later
        let checked = check(events);
        assert!(checked.is_err() || at_start && checked.is_ok(), "{index}");
    }
}

/// A whole epoch may be missing only if a `Reset` reports it.
#[test]
fn wrong_content_wrong_end_and_a_lost_epoch_are_found() {
    let mut other = valid();
    other[1] = ReceivedEvent::Message { epoch: "a".to_owned(), offset: 5, text: "other".to_owned() };
    check(other).unwrap_err();

    let mut more = valid();
    more.push(message("c", 6));
    check(more).unwrap_err();

    let without_b: Vec<_> = valid().into_iter().filter(|event| !format!("{event:?}").contains("\"b\"")).collect();
    check(without_b).unwrap(); // the reset to c covers it

    let check_from_no_epoch = |events: Vec<ReceivedEvent>| {
        let transcript = Transcript { acked_before: 0, start: Some((String::new(), 0)), events };
        let mut ledger = ledger();
        ledger.acks.retain(|ack| ack.epoch != "a");
        ledger.check(&transcript, ("c", 5))
    };
    let c = (1..=5).map(|offset| message("c", offset));
    let without_reset: Vec<_> = [caught_up("", 0)].into_iter().chain(c.clone()).collect();
    check_from_no_epoch(without_reset).unwrap_err();
    let with_reset: Vec<_> = [caught_up("", 0), reset("c")].into_iter().chain(c).collect();
    check_from_no_epoch(with_reset).unwrap();
}
