//! Flags for the credentials that callers present to the services.

use std::path::PathBuf;

use tidings_client::{Addresses, CredentialFiles, CredentialKind, Credentials, Endpoints};

/// The caller's credentials, and the CA that the services' certificates must chain to.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Credentials")]
pub(crate) struct Args {
    /// PEM file with the CA certificates that services are verified against; required for https://
    /// addresses
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_CA")]
    ca: Option<PathBuf>,

    /// PEM file with the client certificate, for services that require one
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_CERT", requires = "key")]
    cert: Option<PathBuf>,

    /// PEM file with the private key of the client certificate
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_KEY", requires = "cert")]
    key: Option<PathBuf>,

    /// File with the caller's token alone, as `tidings token new --out` writes it (not a service's
    /// token list)
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Error of a credential that is missing or unusable, with the flag that sets it.
#[derive(Debug, thiserror::Error)]
#[error("{flag} ({variable}): {problem}")]
pub(crate) struct CredentialFlagError {
    flag: &'static str,
    variable: &'static str,
    problem: String,
}

impl From<tidings_client::InvalidCredentials> for CredentialFlagError {
    fn from(unusable: tidings_client::InvalidCredentials) -> Self {
        let (flag, variable) = match unusable.kind {
            CredentialKind::Ca => ("--ca", "TIDINGS_CALLER_CA"),
            CredentialKind::Cert => ("--cert", "TIDINGS_CALLER_CERT"),
            CredentialKind::Key => ("--key", "TIDINGS_CALLER_KEY"),
            CredentialKind::Token => ("--token-file", "TIDINGS_CALLER_TOKEN_FILE"),
        };
        Self { flag, variable, problem: unusable.to_string() }
    }
}

impl Args {
    /// Returns endpoints for these addresses that present the credentials.
    ///
    /// # Errors
    /// The first credential file that is missing or unusable.
    pub(crate) fn endpoints(&self, addresses: &Addresses) -> Result<Endpoints, CredentialFlagError> {
        Ok(Endpoints::secured(addresses, &self.open(addresses)?))
    }

    /// Reads the credentials for calls to these addresses.
    ///
    /// # Errors
    /// The first credential file that is missing or unusable.
    pub(crate) fn open(&self, addresses: &Addresses) -> Result<Credentials, CredentialFlagError> {
        let files = CredentialFiles {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            token: self.token_file.clone(),
        };
        Ok(Credentials::open(&files, addresses)?)
    }
}
