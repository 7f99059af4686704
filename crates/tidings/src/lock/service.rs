//! The lock service as the verbs of `tidings lock` call it: flags and calls.

use std::time::Duration;

use tidings_client::{Addresses, Caller};

use crate::address::{LOCK_ADDRESS, LOCK_VARIABLE};
use crate::args::{self, Output};
use crate::credentials;

/// Flags that all `tidings lock` verbs share.
#[derive(Debug, clap::Args)]
pub(super) struct LockServiceArgs {
    /// Address of the lock service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = LOCK_VARIABLE, default_value = LOCK_ADDRESS)]
    addr: Addresses,

    /// Longest wait for one response, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

impl LockServiceArgs {
    /// Returns a caller of the service with these flags.
    ///
    /// # Errors
    /// A credential is missing or unusable.
    pub(super) fn caller(&self) -> Result<Caller, credentials::CredentialFlagError> {
        Ok(Caller::new(self.credentials.endpoints(&self.addr)?, args::policy(self.timeout)))
    }
}
