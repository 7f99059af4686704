//! Periodic background work of a service.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::chain;

/// Runs a step of work every `tick` until `stop`, and again at once while the step returns `true`,
/// which means that there is more to do.
///
/// A step that fails is retried at the next tick. The first failure is logged, and so is the
/// recovery; failures between them are not, because steps may run four times a second.
pub async fn repeat<E: Error, F: Future<Output = Result<bool, E>>>(
    task: &'static str,
    tick: Duration,
    stop: CancellationToken,
    work: impl FnMut() -> F,
) {
    repeat_on(pending, task, tick, stop, work).await;
}

/// Like [`repeat`], and also runs a step at once when `wake_up` completes. After a failed step only
/// the tick counts.
pub async fn repeat_on<N: Future<Output = ()>, E: Error, F: Future<Output = Result<bool, E>>>(
    wake_up: impl Fn() -> N,
    task: &'static str,
    tick: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> F,
) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            biased; // `stop` has priority
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = wake_up(), if !failing => {}
        }
        let outcome = loop {
            match work().await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match &outcome {
            Err(error) if !failing => {
                tracing::warn!(task, error = chain(error), "background task failed, retrying at its next tick");
            }
            Ok(()) if failing => tracing::info!(task, "background task recovered"),
            _ => {}
        }
        failing = outcome.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_starts_a_step_unless_the_last_one_failed() {
        let (stop, wake_up) = (CancellationToken::new(), tokio::sync::Notify::new());
        let start = tokio::time::Instant::now();
        let mut times = Vec::new();

        let tick = Duration::from_millis(250);
        repeat_on(
            async || wake_up.notified().await,
            "test",
            tick,
            stop.clone(),
            || {
                times.push(start.elapsed().as_millis());
                wake_up.notify_one();
                ready(match times.len() {
                    1 => Ok(false),
                    2 => Err(io::Error::other("down")),
                    _ => {
                        stop.cancel();
                        Ok(false)
                    }
                })
            },
        )
        .await;

        assert_eq!(times, [0, 0, 250]);
    }

    /// After a failure it waits for the next tick.
    #[tokio::test(start_paused = true)]
    async fn a_step_repeats_at_once_while_there_is_more_to_do() {
        let stop = CancellationToken::new();
        let start = tokio::time::Instant::now();
        let mut times = Vec::new();

        repeat("test", Duration::from_millis(250), stop.clone(), || {
            times.push(start.elapsed().as_millis());
            ready(match times.len() {
                1 => Ok(true),
                2 => Err(io::Error::other("down")),
                3 => Ok(false),
                _ => {
                    stop.cancel();
                    Ok(true)
                }
            })
        })
        .await;

        assert_eq!(times, [0, 0, 250, 500]);
    }
}
