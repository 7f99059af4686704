//! The generator against servers that stall, refuse and are too slow, in simulated time.

use std::time::Duration;

use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn load(pace: Pace, in_flight: usize) -> LoadSpec {
    LoadSpec { pace, in_flight, warm_up: SECOND, time: 10 * SECOND, grace: 5 * SECOND }
}

/// Returns a server that takes 1 to 3 ms per call, by call number and seed, and stalls in `stall`.
fn server(seed: u64, stall: std::ops::Range<Duration>) -> BenchCall {
    let begin = Instant::now();
    Arc::new(move |slot| {
        let stall = stall.clone();
        Box::pin(async move {
            let now = begin.elapsed();
            if stall.contains(&now) {
                sleep(stall.end.saturating_sub(now)).await;
            }
            // Knuth's multiplicative hash: pseudo-random, and reproducible by seed.
            let chance = (slot.number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
            sleep(MILLI + MILLI * u32::try_from(chance).unwrap() / 8).await;
            Ok(1)
        })
    })
}

/// Returns a server that gives every call the same outcome, at once.
fn immediate(outcome: Result<u64, CallFailure>) -> BenchCall {
    Arc::new(move |_| Box::pin(std::future::ready(outcome.clone())))
}

/// Runs the load in the simulated time of the test, which advances when all tasks are idle.
async fn run(load: LoadSpec, call: BenchCall) -> RunTally {
    run_paced(&load, &call, &Arc::default(), |schedule| {
        tokio::spawn(async move { release_due_calls(&schedule, tokio::time::sleep_until).await })
    })
    .await
}

const STALL: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_stall_of_a_second_shows_in_the_p99_of_an_open_loop() {
    for seed in 0..3 {
        let tally = run(load(Pace::Rate(1000.0), 2000), server(seed, STALL)).await;

        // A tenth of the calls is due in the stall, so a hundredth waits for more than 0.9 s of it.
        let p99 = tally.latency.percentile(99.0);
        assert!(p99 > 890 * MILLI && p99 < 910 * MILLI, "{p99:?}");
        assert!(tally.latency.percentile(50.0) < 5 * MILLI);
        assert_eq!((tally.calls(), tally.failed()), (10_000, 0));
        assert!(tally.rate_held(), "{} late", tally.late);
    }
}

/// For this reason a closed loop does not replace an open one.
#[tokio::test(start_paused = true)]
async fn a_closed_loop_hides_the_same_stall() {
    let tally = run(load(Pace::Closed, 4), server(7, STALL)).await;

    assert!(tally.latency.percentile(99.0) < 5 * MILLI, "{:?}", tally.latency.percentile(99.0));
    assert!(tally.latency.max() >= SECOND);
    assert_eq!(tally.failed(), 0);
}

/// The stall is in the p99 all the same, and the generator reports that it did not hold the rate.
#[tokio::test(start_paused = true)]
async fn a_stall_that_keeps_all_callers_busy_is_in_the_p99() {
    let tally = run(load(Pace::Rate(1000.0), 20), server(7, STALL)).await;

    assert!(tally.latency.percentile(99.0) > 890 * MILLI, "{:?}", tally.latency.percentile(99.0));
    assert_eq!((tally.calls(), tally.unsent), (10_000, 0));
    assert!(!tally.rate_held());
    assert!(tally.max_start_delay > 900 * MILLI);
}

/// Their latency is the time until they were given up.
#[tokio::test(start_paused = true)]
async fn unsent_calls_are_in_the_latencies() {
    // One caller sends at most 1000 calls/s of 5000 that are due: a quarter of all within 11 + 5 s.
    let tally = run(load(Pace::Rate(5000.0), 1), server(7, SECOND..SECOND)).await;

    assert_eq!(tally.calls(), 50_000);
    assert!(tally.unsent > 38_000, "{}", tally.unsent);
    assert_eq!(tally.failed(), tally.unsent);
    assert!(!tally.rate_held());
    assert!(tally.latency.percentile(50.0) > 5 * SECOND);
    assert!(tally.rate() < 1000.0);
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_sends_the_specified_number_of_calls() {
    for (rate, calls) in [(0.5, 5), (3.0, 30), (999.0, 9_990), (7_001.0, 70_010)] {
        let tally = run(load(Pace::Rate(rate), 10), immediate(Ok(1))).await;

        assert_eq!((tally.calls(), tally.succeeded), (calls, calls), "{rate}");
        assert!(tally.latency.max() < 2 * MILLI, "{:?}", tally.latency.max());
    }
}

/// Only successes and timeouts are in the latencies.
#[tokio::test(start_paused = true)]
async fn failures_are_counted_by_code_and_reason() {
    let call: BenchCall = Arc::new(|slot| {
        Box::pin(async move {
            sleep(MILLI).await;
            match slot.number % 10 {
                0 => Err(CallFailure { code: "UNAVAILABLE", reason: "STORE_AWAY".into() }),
                1 => Err(CallFailure::unexpected("HELD")),
                2 => {
                    sleep(5 * SECOND).await;
                    Err(CallFailure { code: "DEADLINE_EXCEEDED", reason: "no response within 5s".into() })
                }
                _ => Ok(100),
            }
        })
    });

    let tally = run(load(Pace::Rate(100.0), 1000), call).await;

    let failures: Vec<_> = tally.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect();
    let expected =
        [("DEADLINE_EXCEEDED no response within 5s", 100), ("OK HELD", 100), ("UNAVAILABLE STORE_AWAY", 100)];
    assert_eq!(failures, expected.map(|(failure, count)| (failure.to_owned(), count)));
    assert_eq!((tally.calls(), tally.failed(), tally.latency.count()), (1000, 300, 800));
    assert!(tally.latency.percentile(99.0) >= 5 * SECOND, "timeouts are in the latencies");
    assert_eq!(tally.items, 100 * tally.succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_is_not_measured() {
    let tally = run(load(Pace::Rate(1000.0), 100), server(7, Duration::ZERO..MILLI * 900)).await;

    assert_eq!(tally.calls(), 10_000);
    assert!(tally.latency.max() < 5 * MILLI, "{:?}", tally.latency.max());
}

#[tokio::test]
async fn an_open_loop_sends_every_call_in_real_time() {
    let load = LoadSpec { warm_up: Duration::ZERO, time: SECOND / 2, ..load(Pace::Rate(1000.0), 10) };
    let tally = super::run(&load, &immediate(Ok(1)), &Arc::default()).await;

    assert_eq!((tally.calls(), tally.unsent), (500, 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_has_one_call_in_flight_per_caller() {
    let in_flight = Arc::new(AtomicU64::new(0));
    let max_in_flight = Arc::new(AtomicU64::new(0));
    let call: BenchCall = {
        let max_in_flight = Arc::clone(&max_in_flight);
        Arc::new(move |_| {
            let (in_flight, max_in_flight) = (Arc::clone(&in_flight), Arc::clone(&max_in_flight));
            Box::pin(async move {
                max_in_flight.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(10 * MILLI).await;
                in_flight.fetch_sub(1, Ordering::SeqCst);
                Ok(1)
            })
        })
    };

    let tally = run(load(Pace::Closed, 8), call).await;

    assert_eq!(max_in_flight.load(Ordering::SeqCst), 8);
    assert!((tally.rate() - 800.0).abs() < 10.0, "{}", tally.rate());
}
