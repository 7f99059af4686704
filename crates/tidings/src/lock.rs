//! `tidings lock`: acquires a lock, runs a command under it, shows its holder, releases it.

mod acquire;
pub(crate) mod error;
mod hold;
mod service;
mod show;

use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::release_lock_response::Outcome;
use tidings_proto::lock::{GetLockRequest, ReleaseLockRequest};

use self::error::Error;
use self::service::LockServiceArgs;
use crate::args::Output;
use crate::contracts::Contracts;
use crate::{exit, out};

const EXAMPLES: &str = "\
Examples:
  tidings lock acquire nightly --wait 60s -- ./import.sh
  tidings lock get orders/42
  tidings lock acquire orders/42 --ttl 60s --output json
  tidings lock release orders/42 --lease LEASE_ID --token TOKEN";

/// Acquire a lock, run a command under it, show its holder, release it.
///
/// A lock is a lease: a holder that stops renewing it loses it, and the next holder gets a larger
/// fencing token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Acquire(acquire::Args),
    Get(GetArgs),
    Release(ReleaseArgs),
}

/// Show the holder of a lock and its waiters.
#[derive(Debug, clap::Args)]
struct GetArgs {
    /// Lock name, e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    service: LockServiceArgs,
}

/// Release a lock; exit code 1 if it is not held under this lease.
#[derive(Debug, clap::Args)]
struct ReleaseArgs {
    /// Lock name, e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    /// Lease id, as printed by `tidings lock acquire`
    #[arg(long, value_name = "ID")]
    lease: String,

    /// Fencing token, as printed by `tidings lock acquire`
    #[arg(long, value_name = "N")]
    token: i64,

    #[command(flatten)]
    service: LockServiceArgs,
}

/// Runs the verb; returns the exit code of the process.
pub(crate) async fn run(args: Args) -> Result<u8, Error> {
    match args.verb {
        Verb::Acquire(args) => acquire::run(args).await,
        Verb::Get(args) => get(args).await.map(|()| exit::DONE),
        Verb::Release(args) => release(args).await.map(|()| exit::DONE),
    }
}

async fn get(GetArgs { name, service }: GetArgs) -> Result<(), Error> {
    let request = GetLockRequest { name };
    let send = async |channel, request| LockServiceClient::new(channel).get_lock(request).await;
    let lock = service.caller()?.call("GetLock", &request, send).await?.lock.unwrap_or_default();
    out::result(match service.output {
        Output::Table => show::lock(&lock),
        output => output.json(&Contracts::compiled_in().json("tidings.lock.v1.Lock", &lock)),
    });
    Ok(())
}

async fn release(ReleaseArgs { name, lease, token, service }: ReleaseArgs) -> Result<(), Error> {
    let request = ReleaseLockRequest { name, lease_id: lease, token };
    let send = async |channel, request| LockServiceClient::new(channel).release_lock(request).await;
    let response = service.caller()?.call("ReleaseLock", &request, send).await?;
    let released = response.outcome() == Outcome::Released;
    match service.output {
        Output::Table if released => out::result("released"),
        Output::Table => {}
        output => {
            let name = "tidings.lock.v1.ReleaseLockResponse";
            out::result(output.json(&Contracts::compiled_in().json(name, &response)));
        }
    }
    if released { Ok(()) } else { Err(Error::NotHeld { name: request.name }) }
}
