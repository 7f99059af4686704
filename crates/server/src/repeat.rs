//! Work that a service does again and again without being called.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Runs a step of work every `tick` until `stop`, and again at once for as long as the step says that there is more.
///
/// A step that fails is tried again at the next tick. That it fails is said once, and so is that it works again: four
/// times a second nobody would read it.
pub async fn repeat<E: Error, F: Future<Output = Result<bool, E>>>(
    what: &'static str,
    tick: Duration,
    stop: CancellationToken,
    work: impl FnMut() -> F,
) {
    repeat_on(pending, what, tick, stop, work).await;
}

/// Like [`repeat`], and also at once whenever there is `news`, unless the last step failed: then the tick decides.
pub async fn repeat_on<N: Future<Output = ()>, E: Error, F: Future<Output = Result<bool, E>>>(
    news: impl Fn() -> N,
    what: &'static str,
    tick: Duration,
    stop: CancellationToken,
    mut work: impl FnMut() -> F,
) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            biased; // to stop comes first
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = news(), if !failing => {}
        }
        let outcome = loop {
            match work().await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match &outcome {
            Err(error) if !failing => tracing::warn!(what, error = crate::run::chain(error), "failing"),
            Ok(()) if failing => tracing::info!(what, "works again"),
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
    async fn news_begin_a_step_at_once_unless_the_last_one_failed() {
        let (stop, news) = (CancellationToken::new(), tokio::sync::Notify::new());
        let start = tokio::time::Instant::now();
        let mut times = Vec::new();

        let tick = Duration::from_millis(250);
        repeat_on(
            async || news.notified().await,
            "test",
            tick,
            stop.clone(),
            || {
                times.push(start.elapsed().as_millis());
                news.notify_one();
                ready(match times.len() {
                    1 => Ok(false),
                    2 => Err(io::Error::other("away")),
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

    #[tokio::test(start_paused = true)]
    async fn a_step_is_repeated_at_once_while_there_is_more_and_after_a_failure_at_the_next_tick() {
        let stop = CancellationToken::new();
        let start = tokio::time::Instant::now();
        let mut times = Vec::new();

        repeat("test", Duration::from_millis(250), stop.clone(), || {
            times.push(start.elapsed().as_millis());
            ready(match times.len() {
                1 => Ok(true),
                2 => Err(io::Error::other("away")),
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
