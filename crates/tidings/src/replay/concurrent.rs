//! Runs jobs concurrently, a bounded number at once.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Runs `job` for each item, at most `limit` at once. Returns the outcomes in the order of the
/// items.
///
/// # Errors
/// The first error of a job; it cancels all other jobs.
pub(super) async fn map_concurrently<I, T, E>(
    items: impl IntoIterator<Item = I>,
    limit: usize,
    job: impl AsyncFn(I) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let job = &job;
    let jobs = items.into_iter().enumerate().map(async |(index, item)| Ok((index, job(item).await?)));
    let mut outcomes: Vec<_> = stream::iter(jobs).buffer_unordered(limit).try_collect().await?;
    outcomes.sort_unstable_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn outcomes_keep_the_order_and_concurrency_is_bounded() {
        let (running, most) = (Cell::new(0), Cell::new(0));

        let outcomes: Result<_, ()> = map_concurrently(0..20_usize, 3, async |item| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            for _ in 0..(20 - item) {
                tokio::task::yield_now().await;
            }
            running.set(running.get() - 1);
            Ok(item)
        })
        .await;

        assert_eq!(outcomes.unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!(most.get(), 3);
    }

    #[tokio::test]
    async fn the_first_error_ends_all_jobs() {
        let outcome: Result<Vec<()>, _> = map_concurrently(0..9, 2, async |item| Err(item)).await;

        assert_eq!(outcome, Err(0));
    }
}
