//! `tidings lock`: take a lock, run a command under it, look who has it, give it back.

mod acquire;
mod hold;
mod show;

use std::io;
use std::time::Duration;

use tidings_client::{Addresses, Caller, Lost};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::release_lock_response::Outcome;
use tidings_proto::lock::{GetLockRequest, ReleaseLockRequest};

use self::show::Blocked;
use crate::address::{LOCK_ADDRESS, LOCK_VARIABLE};
use crate::cli::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, error, out};

const EXAMPLES: &str = "\
Examples:
  tidings lock acquire nightly --wait 60s -- ./import.sh
  tidings lock get orders/42
  tidings lock acquire orders/42 --ttl 60s --output json
  tidings lock release orders/42 --lease LEASE_ID --token TOKEN";

/// Take a lock, run a command under it, see who holds it, release it.
///
/// A lock is a lease: whoever stops renewing it loses it, and the next one gets it with a larger token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Acquire(acquire::Args),
    Get(Get),
    Release(Release),
}

/// Say who holds a lock and who waits for it.
#[derive(Debug, clap::Args)]
struct Get {
    /// The lock, e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    service: Service,
}

/// Release a lock; exit code 1 if it was not held under this lease.
#[derive(Debug, clap::Args)]
struct Release {
    /// The lock, e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    /// `lease_id` as it was printed when the lock was acquired
    #[arg(long, value_name = "ID")]
    lease: String,

    /// `token` as it was printed when the lock was acquired
    #[arg(long, value_name = "N")]
    token: i64,

    #[command(flatten)]
    service: Service,
}

/// What all verbs want to know of the service.
#[derive(Debug, clap::Args)]
struct Service {
    /// Where the lock service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = LOCK_VARIABLE, default_value = LOCK_ADDRESS)]
    addr: Addresses,

    /// Longest time to wait for one answer, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = cli::duration)]
    timeout: Duration,

    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

impl Service {
    fn caller(&self) -> Result<Caller, credentials::Unusable> {
        Ok(Caller::new(self.credentials.endpoints(&self.addr)?, cli::policy(self.timeout)))
    }
}

/// Why the answer is not yes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused or did not answer.
    #[error(transparent)]
    Service(#[from] tidings_client::Error),
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// Somebody else has it.
    #[error("{0}")]
    Blocked(Box<Blocked>),
    /// There was nothing to release.
    #[error("{name} was not held under this lease")]
    NotHeld { name: String },
    /// The command can not be run.
    #[error("can not run {command}: {cause}")]
    Command { command: String, cause: io::Error },
    /// The operating system refused.
    #[error("can not {action}: {cause}")]
    System { action: &'static str, cause: io::Error },
    /// The lock was lost while the command ran.
    #[error("{name} was lost, and {command} was ended: {lost}")]
    Lost { name: String, command: String, lost: Lost },
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Blocked(_) | Self::NotHeld { .. } => error::NO,
            Self::Command { .. } | Self::Credentials(_) => error::USAGE,
            Self::Service(_) | Self::System { .. } | Self::Lost { .. } => error::SERVICE,
        }
    }
}

/// Does what the verb says. Returns what the process ends with.
pub(crate) async fn run(args: Args) -> Result<u8, Error> {
    match args.verb {
        Verb::Acquire(args) => acquire::run(args).await,
        Verb::Get(args) => get(args).await.map(|()| error::DONE),
        Verb::Release(args) => release(args).await.map(|()| error::DONE),
    }
}

async fn get(Get { name, service }: Get) -> Result<(), Error> {
    let request = GetLockRequest { name };
    let send = async |channel, request| LockServiceClient::new(channel).get_lock(request).await;
    let lock = service.caller()?.call("GetLock", &request, send).await?.lock.unwrap_or_default();
    out::result(match service.output {
        Output::Table => show::lock(&lock),
        output => output.json(&Contracts::compiled_in().json("tidings.lock.v1.Lock", &lock)),
    });
    Ok(())
}

async fn release(Release { name, lease, token, service }: Release) -> Result<(), Error> {
    let request = ReleaseLockRequest { name, lease_id: lease, token };
    let send = async |channel, request| LockServiceClient::new(channel).release_lock(request).await;
    let answer = service.caller()?.call("ReleaseLock", &request, send).await?;
    let released = answer.outcome() == Outcome::Released;
    match service.output {
        Output::Table if released => out::result("released"),
        Output::Table => {}
        output => {
            let name = "tidings.lock.v1.ReleaseLockResponse";
            out::result(output.json(&Contracts::compiled_in().json(name, &answer)));
        }
    }
    if released { Ok(()) } else { Err(Error::NotHeld { name: request.name }) }
}
