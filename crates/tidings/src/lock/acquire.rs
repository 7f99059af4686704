//! `tidings lock acquire`: acquires a lock, and optionally runs a command under it.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use tidings_client::{AcquireOptions, Acquisition, LockGuard};
use tidings_proto::lock::acquire_lock_response::{Held, TimedOut};

use super::error::Error;
use super::service::LockServiceArgs;
use super::show::LockBlocked;
use super::{hold, show};
use crate::args::{self, Output};
use crate::contracts::Contracts;
use crate::{exit, out};

const MORE: &str = "\
Without COMMAND it prints token, lease id and lease. The lock stays held until the
lease expires or `tidings lock release` is run. A repeated command with the same
--request-id finds the same hold and renews it.

With COMMAND the lock is renewed while the command runs, then released. The command
gets the fencing token in TIDINGS_LOCK_TOKEN; the resources that it writes to should
refuse a token smaller than the largest they have seen. The command runs in its own
process group, to which SIGINT, SIGTERM and SIGHUP are forwarded, and does not read
from the terminal. If the lock is lost, the group gets SIGTERM, and SIGKILL after 5 s.
If this process is killed with SIGKILL, the command keeps running: the fencing token
protects against that.

Exit codes: with COMMAND its exit code (128 + signal number if a signal ended it),
without COMMAND 0 if the lock is held; 1 another owner holds the lock, 2 wrong usage,
3 the service failed or did not respond, or the lock was lost.

Examples:
  tidings lock acquire nightly --wait 60s -- ./import.sh
  tidings lock acquire leader --ttl 5s -- sh -c 'serve --token $TIDINGS_LOCK_TOKEN'
  token=$(tidings lock acquire orders/42 --output jsonl | jq -r .token)";

/// Acquire a lock, and optionally run a command under it.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Lock name, 1 to 200 of [A-Za-z0-9._~/-], e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    /// Name of the owner, shown to other callers [default: user@host]
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,

    /// Duration of the lease without renewal, 1s to 300s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    ttl: Duration,

    /// Longest wait for the lock, at most 60s; 0s: do not wait
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = args::duration_or_zero)]
    wait: Duration,

    /// Idempotency key, under which a repeated command finds the same hold: 1 to 64 of
    /// [A-Za-z0-9._~-]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    #[command(flatten)]
    service: LockServiceArgs,

    /// Command to run under the lock, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Acquires the lock, then prints it or runs the command; returns the exit code of the process.
pub(super) async fn run(args: Args) -> Result<u8, Error> {
    let Args { name, owner, ttl, wait, request_id, service, command } = args;
    let owner = owner.unwrap_or_else(user_at_host);
    let options = AcquireOptions { name: name.clone(), owner, ttl, wait, request_id };
    let guard = match LockGuard::acquire(&service.caller()?, options).await? {
        Acquisition::Granted(guard) => guard,
        Acquisition::Held { blockers, waiting } => {
            let held = Held { blockers, waiting };
            print("tidings.lock.v1.AcquireLockResponse.Held", &held, service.output);
            return Err(Error::Blocked(Box::new(LockBlocked::held(name, held))));
        }
        Acquisition::TimedOut { blockers, position } => {
            let timed_out = TimedOut { blockers, position };
            print("tidings.lock.v1.AcquireLockResponse.TimedOut", &timed_out, service.output);
            return Err(Error::Blocked(Box::new(LockBlocked::timed_out(name, wait, timed_out))));
        }
    };
    if let Some((program, arguments)) = command.split_first() {
        return hold::run(guard, name, program, arguments).await;
    }
    match service.output {
        Output::Table => out::result(show::grant(guard.grant())),
        output => print("tidings.lock.v1.AcquireLockResponse.Granted", guard.grant(), output),
    }
    guard.detach();
    Ok(exit::DONE)
}

/// Prints a result as JSON, unless the output format is a table.
fn print(name: &str, message: &impl prost::Message, output: Output) {
    if output != Output::Table {
        out::result(output.json(&Contracts::compiled_in().json(name, message)));
    }
}

/// Returns `user@host` of this process.
fn user_at_host() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
