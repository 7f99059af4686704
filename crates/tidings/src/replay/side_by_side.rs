//! Runs jobs side by side, a bounded number at once.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Runs `job` for each item, at most `limit` at once; the outcomes come in the order of the items.
///
/// # Errors
/// The first error ends all jobs.
pub(super) async fn side_by_side<I, T, E>(
    items: impl IntoIterator<Item = I>,
    limit: usize,
    job: impl AsyncFn(I) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let job = &job;
    let jobs = items.into_iter().enumerate().map(async |(place, item)| Ok((place, job(item).await?)));
    let mut outcomes: Vec<_> = stream::iter(jobs).buffer_unordered(limit).try_collect().await?;
    outcomes.sort_unstable_by_key(|(place, _)| *place);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn outcomes_keep_the_order_and_jobs_their_bound() {
        let (running, most) = (Cell::new(0), Cell::new(0));

        let outcomes: Result<_, ()> = side_by_side(0..20_usize, 3, async |item| {
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
    async fn the_first_error_ends_all() {
        let outcome: Result<Vec<()>, _> = side_by_side(0..9, 2, async |item| Err(item)).await;

        assert_eq!(outcome, Err(0));
    }
}
