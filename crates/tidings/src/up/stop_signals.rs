//! The signals that stop the command.

use tokio::signal::unix::{SignalKind, signal};

use super::error::Error;

/// The listener for SIGINT and SIGTERM.
pub(super) struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub(super) fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|cause| Error::System { action: "listen for signals", cause });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for SIGINT (Ctrl-C) or SIGTERM.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
