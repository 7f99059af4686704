//! `tidings lock acquire`.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use tidings_client::{AcquireOptions, Acquired, LockGuard};
use tidings_proto::lock::acquire_lock_response::{Held, TimedOut};

use super::show::Blocked;
use super::{Error, Service, hold, show};
use crate::cli::{self, Output};
use crate::contracts::Contracts;
use crate::{error, out};

const MORE: &str = "\
Without COMMAND it prints token, lease id and lease, and the lock stays held
until the lease has run out or `tidings lock release`. Under the same
--request-id it finds the same hold again and renews it.

With COMMAND the lock is renewed for as long as the command runs, then released.
The command has the token in TIDINGS_LOCK_TOKEN: whatever it writes to should
refuse smaller tokens than the largest it has seen. It runs in a process group of
its own, to which SIGINT, SIGTERM and SIGHUP are passed on, and does not read from
the terminal. If the lock is lost the group gets SIGTERM, and SIGKILL after 5 s.
Nobody ends it if this process is ended by SIGKILL: that is what the token is for.

Exit codes: that of the command (128 + number of the signal that ended it);
without one 0 if the lock is held; 1 somebody else holds it, 2 wrong usage, 3 a
service did not do it, or the lock was lost.

Examples:
  tidings lock acquire nightly --wait 60s -- ./import.sh
  tidings lock acquire leader --ttl 5s -- sh -c 'serve --token $TIDINGS_LOCK_TOKEN'
  token=$(tidings lock acquire orders/42 --output jsonl | jq -r .token)";

/// Take a lock, and run a command under it if there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The lock, 1 to 200 of [A-Za-z0-9._~/-], e.g. orders/42
    #[arg(value_name = "NAME")]
    name: String,

    /// What you call yourself, for those who ask who holds it [default: user@host]
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,

    /// How long the lease lasts without being renewed, 1s to 300s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = cli::duration)]
    ttl: Duration,

    /// How long to wait for it, at most 60s; 0s means not at all
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = cli::duration_or_zero)]
    wait: Duration,

    /// Name this acquire, so that the same command finds the same hold: 1 to 64 of [A-Za-z0-9._~-]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    #[command(flatten)]
    service: Service,

    /// The command to run under the lock, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Takes the lock, then prints it, or runs the command to its end. Returns what the process ends with.
pub(super) async fn run(args: Args) -> Result<u8, Error> {
    let Args { name, owner, ttl, wait, request_id, service, command } = args;
    let owner = owner.unwrap_or_else(user_at_host);
    let options = AcquireOptions { name: name.clone(), owner, ttl, wait, request_id };
    let guard = match LockGuard::acquire(&service.caller()?, options).await? {
        Acquired::Granted(guard) => guard,
        Acquired::Held { blockers, waiting } => {
            let held = Held { blockers, waiting };
            print("tidings.lock.v1.AcquireLockResponse.Held", &held, service.output);
            return Err(Error::Blocked(Box::new(Blocked::held(name, held))));
        }
        Acquired::TimedOut { blockers, position } => {
            let late = TimedOut { blockers, position };
            print("tidings.lock.v1.AcquireLockResponse.TimedOut", &late, service.output);
            return Err(Error::Blocked(Box::new(Blocked::timed_out(name, wait, late))));
        }
    };
    if let Some((program, arguments)) = command.split_first() {
        return hold::run(guard, name, program, arguments).await;
    }
    match service.output {
        Output::Table => out::result(show::grant(guard.grant())),
        output => print("tidings.lock.v1.AcquireLockResponse.Granted", guard.grant(), output),
    }
    guard.leave();
    Ok(error::DONE)
}

/// Prints a result for programs; people get it in a sentence.
fn print(name: &str, message: &impl prost::Message, output: Output) {
    if output != Output::Table {
        out::result(output.json(&Contracts::compiled_in().json(name, message)));
    }
}

/// Who runs this, and where.
fn user_at_host() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
