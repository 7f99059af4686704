//! Shutdown on SIGTERM and SIGINT. SIGHUP is ignored.
//!
//! SIGHUP would end the process without a drain. It reaches services by habit (log rotation,
//! "reload") and when a terminal closes. Certificates and tokens are reloaded without it, and a
//! service that was started with `nohup` has to survive it.

use std::io;
use std::process;

use tidings_server::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that SIGTERM or SIGINT cancels.
///
/// A second signal ends the process at once with exit code 1, without a drain. From now on SIGHUP
/// does not end the process.
///
/// # Errors
///
/// The handlers cannot be installed.
pub fn shutdown() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP ignored: changed certificates and tokens are reloaded without it");
        }
    });
    let token = CancellationToken::new();
    let shutdown = token.clone();
    // Not tracked: it waits for the second signal as long as the process lives.
    tokio::spawn(async move {
        for is_second in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if is_second {
                tracing::warn!(signal = name, "second signal, exiting without drain");
                telemetry::flush();
                process::exit(1);
            }
            tracing::info!(signal = name, "signal received, shutting down");
            shutdown.cancel();
        }
    });
    Ok(token)
}
