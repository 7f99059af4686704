//! What every verb that calls shows to the services.

use std::path::PathBuf;

use tidings_client::{Addresses, Credentials, Endpoints, Files, Part};

/// What the services are shown, and who they must be.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Credentials")]
pub(crate) struct Args {
    /// File with the certificates in PEM of those who signed the services; https:// addresses need it
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_CA")]
    ca: Option<PathBuf>,

    /// File with your certificate in PEM, for services that ask for one
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_CERT", requires = "key")]
    cert: Option<PathBuf>,

    /// File with the private key of your certificate in PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_KEY", requires = "cert")]
    key: Option<PathBuf>,

    /// File with your token and nothing else, as `tidings token new --out` writes it; not the list of tokens that a service
    /// has
    #[arg(long, value_name = "FILE", env = "TIDINGS_CALLER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Credentials that can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} ({variable}): {problem}")]
pub(crate) struct Unusable {
    flag: &'static str,
    variable: &'static str,
    problem: String,
}

impl From<tidings_client::Unusable> for Unusable {
    fn from(unusable: tidings_client::Unusable) -> Self {
        let (flag, variable) = match unusable.part {
            Part::Ca => ("--ca", "TIDINGS_CALLER_CA"),
            Part::Cert => ("--cert", "TIDINGS_CALLER_CERT"),
            Part::Key => ("--key", "TIDINGS_CALLER_KEY"),
            Part::Token => ("--token-file", "TIDINGS_CALLER_TOKEN_FILE"),
        };
        Self { flag, variable, problem: unusable.to_string() }
    }
}

impl Args {
    /// The instances at these addresses, to which the credentials are shown.
    ///
    /// # Errors
    /// Which file can not be used, and why.
    pub(crate) fn endpoints(&self, addresses: &Addresses) -> Result<Endpoints, Unusable> {
        let files = Files {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            token: self.token_file.clone(),
        };
        Ok(Endpoints::secured(addresses, &Credentials::open(&files, addresses)?))
    }
}
