//! Guards work by a lock, so that one process at a time does it.
//!
//! The lock is renewed while the work runs. If it is lost, the work is cancelled: another process
//! may begin. A paused process cannot notice the loss in time, so the work sends the fencing token
//! with every write, and the resource refuses a token smaller than one it has seen.
//!
//! Beside a running `make up`, here or in several terminals at once:
//!
//! ```console run
//! $ cargo run --quiet -p tidings-client --example lock -- nightly worker-1
//! nightly is granted to worker-1 with token ...
//! worker-1 wrote 20 records
//! $ tidings lock acquire nightly --owner another >/dev/null
//! $ cargo run --quiet -p tidings-client --example lock -- nightly worker-2
//! Error: nightly is held by another
//! ```
//!
//! If Redis is flushed meanwhile, the lock is lost and the work is cancelled:
//!
//! ```console
//! Error: nightly is lost, the work was stopped: the service reported that the lease has ended
//! ```
//!
//! `TIDINGS_LOCK_ADDR` holds the addresses of the instances, by default `127.0.0.1:7403`.

#![expect(clippy::print_stdout, reason = "the result of the example")]

use std::env;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidings_client::{AcquireOptions, Acquisition, Caller, Endpoints, LockGuard, Policy};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let (name, owner) = arguments.next().zip(arguments.next()).context("usage: lock NAME OWNER [RECORDS]")?;
    let records = arguments.next().map_or(Ok(20), |text| text.parse::<u32>()).context("RECORDS is not a number")?;

    let addresses = env::var("TIDINGS_LOCK_ADDR").unwrap_or_else(|_| "127.0.0.1:7403".to_owned());
    let locks = Caller::new(Endpoints::new(&addresses.parse()?), Policy::default());

    // If this process dies, another one waits for this long. `wait` would queue for the lock.
    let ttl = Duration::from_secs(5);
    let lock = match LockGuard::acquire(&locks, AcquireOptions { ttl, ..AcquireOptions::new(&name, &owner) }).await? {
        Acquisition::Granted(lock) => lock,
        Acquisition::Held { blockers, .. } | Acquisition::TimedOut { blockers, .. } => {
            bail!("{name} is held by {}", blockers.first().map_or("a waiter", |holder| holder.owner.as_str()));
        }
    };
    println!("{name} is granted to {owner} with token {}", lock.token());

    match lock.guard(write_records(records, lock.token())).await {
        Ok(written) => println!("{owner} wrote {written} records"),
        Err(lost) => bail!("{name} is lost, the work was stopped: {lost}"),
    }
    // Frees the lock at once. If this fails, it is free when its lease expires.
    lock.release().await?;
    Ok(())
}

/// The work, here only a pause per write. It may be cancelled at any `await`, between two writes.
///
/// A write that the token fences, in SQL:
/// `UPDATE report SET total = $1, token = $2 WHERE id = $3 AND token <= $2`.
async fn write_records(records: u32, _token: i64) -> u32 {
    for _ in 0..records {
        sleep(Duration::from_millis(50)).await;
    }
    records
}
