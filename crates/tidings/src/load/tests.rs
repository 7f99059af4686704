//! The generator before servers that stall, refuse and are too slow, in a time that the tests make.

use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn load(pace: Pace, in_flight: usize) -> Load {
    Load { pace, in_flight, warm_up: SECOND, time: 10 * SECOND, grace: 5 * SECOND }
}

/// A server that needs 1 to 3 ms for a call, by its number and the seed, and does nothing at all in `stall`.
fn server(seed: u64, stall: std::ops::Range<Duration>) -> Call {
    let begin = Instant::now();
    Arc::new(move |turn| {
        let stall = stall.clone();
        Box::pin(async move {
            let now = begin.elapsed();
            if stall.contains(&now) {
                sleep(stall.end.saturating_sub(now)).await;
            }
            // Knuth's multiplicative hash: any numbers will do, if a seed gives the same ones again.
            let chance = (turn.number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
            sleep(MILLI + MILLI * u32::try_from(chance).unwrap() / 8).await;
            Ok(1)
        })
    })
}

/// A server that answers everything at once, with the same.
fn at_once(answer: Result<u64, Fault>) -> Call {
    Arc::new(move |_| Box::pin(std::future::ready(answer.clone())))
}

/// Runs in the time of the test, which goes on when nobody has anything to do.
async fn run(load: Load, call: Call) -> Tally {
    run_paced(&load, &call, &Arc::default(), |tickets| {
        tokio::spawn(async move { pace(&tickets, tokio::time::sleep_until).await })
    })
    .await
}

const STALL: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_for_a_second_shows_in_the_p99_of_an_open_loop() {
    for seed in 0..3 {
        let tally = run(load(Pace::Rate(1000.0), 2000), server(seed, STALL)).await;

        // A tenth of the calls should have begun in that second: a hundredth waited for more than nine tenths of it.
        let p99 = tally.latency.percentile(99.0);
        assert!(p99 > 890 * MILLI && p99 < 910 * MILLI, "{p99:?}");
        assert!(tally.latency.percentile(50.0) < 5 * MILLI);
        assert_eq!((tally.calls(), tally.failed()), (10_000, 0));
        assert!(tally.held_its_rate(), "{} late", tally.late);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_stall_is_hidden_by_a_closed_loop_which_is_why_there_are_both() {
    let tally = run(load(Pace::Closed, 4), server(7, STALL)).await;

    assert!(tally.latency.percentile(99.0) < 5 * MILLI, "{:?}", tally.latency.percentile(99.0));
    assert!(tally.latency.max() >= SECOND);
    assert_eq!(tally.failed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_in_the_p99_also_when_all_callers_are_busy_and_the_generator_says_that_it_fell_behind() {
    let tally = run(load(Pace::Rate(1000.0), 20), server(7, STALL)).await;

    assert!(tally.latency.percentile(99.0) > 890 * MILLI, "{:?}", tally.latency.percentile(99.0));
    assert_eq!((tally.calls(), tally.unsent), (10_000, 0));
    assert!(!tally.held_its_rate());
    assert!(tally.latest > 900 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_began_are_counted_with_as_long_as_they_waited() {
    // One caller of at most 1000 a second, and five times as much to do: after 11 + 5 s a quarter was sent.
    let tally = run(load(Pace::Rate(5000.0), 1), server(7, SECOND..SECOND)).await;

    assert_eq!(tally.calls(), 50_000);
    assert!(tally.unsent > 38_000, "{}", tally.unsent);
    assert_eq!(tally.failed(), tally.unsent);
    assert!(!tally.held_its_rate());
    assert!(tally.latency.percentile(50.0) > 5 * SECOND);
    assert!(tally.rate() < 1000.0);
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_sends_as_many_calls_as_were_asked_for_at_any_rate() {
    for (rate, calls) in [(0.5, 5), (3.0, 30), (999.0, 9_990), (7_001.0, 70_010)] {
        let tally = run(load(Pace::Rate(rate), 10), at_once(Ok(1))).await;

        assert_eq!((tally.calls(), tally.answers), (calls, calls), "{rate}");
        assert!(tally.latency.max() < 2 * MILLI, "{:?}", tally.latency.max());
    }
}

#[tokio::test(start_paused = true)]
async fn faults_are_counted_by_code_and_reason_and_refusals_are_not_timed() {
    let call: Call = Arc::new(|turn| {
        Box::pin(async move {
            sleep(MILLI).await;
            match turn.number % 10 {
                0 => Err(Fault { code: "UNAVAILABLE", reason: "STORE_AWAY".into() }),
                1 => Err(Fault::answer("HELD")),
                2 => {
                    sleep(5 * SECOND).await;
                    Err(Fault { code: "DEADLINE_EXCEEDED", reason: "no answer within 5s".into() })
                }
                _ => Ok(100),
            }
        })
    });

    let tally = run(load(Pace::Rate(100.0), 1000), call).await;

    let faults: Vec<_> = tally.faults.iter().map(|(fault, count)| (fault.to_string(), *count)).collect();
    let expected = [("DEADLINE_EXCEEDED no answer within 5s", 100), ("OK HELD", 100), ("UNAVAILABLE STORE_AWAY", 100)];
    assert_eq!(faults, expected.map(|(fault, count)| (fault.to_owned(), count)));
    assert_eq!((tally.calls(), tally.failed(), tally.latency.count()), (1000, 300, 800));
    assert!(tally.latency.percentile(99.0) >= 5 * SECOND, "what did not come in time is timed");
    assert_eq!(tally.items, 100 * tally.answers);
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_is_not_counted() {
    let tally = run(load(Pace::Rate(1000.0), 100), server(7, Duration::ZERO..MILLI * 900)).await;

    assert_eq!(tally.calls(), 10_000);
    assert!(tally.latency.max() < 5 * MILLI, "{:?}", tally.latency.max());
}

#[tokio::test]
async fn in_real_time_a_call_is_late_by_what_the_machine_needs_and_no_timer_of_a_millisecond() {
    let load = Load { warm_up: Duration::ZERO, time: SECOND / 2, ..load(Pace::Rate(1000.0), 10) };
    let tally = super::run(&load, &at_once(Ok(1)), &Arc::default()).await;

    assert_eq!((tally.calls(), tally.unsent), (500, 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_has_as_many_calls_under_way_as_callers() {
    let under_way = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    let call: Call = {
        let most = Arc::clone(&most);
        Arc::new(move |_| {
            let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
            Box::pin(async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(10 * MILLI).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                Ok(1)
            })
        })
    };

    let tally = run(load(Pace::Closed, 8), call).await;

    assert_eq!(most.load(Ordering::SeqCst), 8);
    assert!((tally.rate() - 800.0).abs() < 10.0, "{}", tally.rate());
}
