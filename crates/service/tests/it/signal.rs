//! Shutdown on a signal.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tidings_service::signal;
use tokio::time::timeout;

/// Longest wait for an event that should happen soon.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn sigterm_cancels_the_token_and_sighup_is_survived() {
    let token = signal::shutdown().unwrap();
    kill_process(getpid(), Signal::HUP).unwrap(); // the default action ends the process
    assert!(!token.is_cancelled());

    kill_process(getpid(), Signal::TERM).unwrap();

    timeout(SOON, token.cancelled()).await.unwrap();
}
