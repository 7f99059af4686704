//! `tidings user watch`: prints new versions of users.

mod version_watch;

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use tidings_client::Addresses;
use tidings_proto::user::UserVersion;
use tokio::signal::unix::{SignalKind, signal};

use self::version_watch::{VersionWatch, WatchEvent};
use super::error::Error;
use crate::address::{USER_ADDRESS, USER_VARIABLE};
use crate::args::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, display, out};

const MORE: &str = "\
Each line of the table has the time of arrival, the id and the new version. First
come the current versions of all users, then the changes. Versions of a user may be
skipped, but never repeat or go back. With json and jsonl each version is an object
with id and version, and absent if there is no such user. To see what has changed:
tidings user get ID --min-version VERSION.

The watch continues across restarts of instances. It ends after --count lines, on
Ctrl-C, or when its output is closed.

Examples:
  tidings user watch ada bob
  tidings user watch ada --count 2 --output jsonl";

/// Watch users and print each new version.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// User ids, 1 to 1000; a user need not exist yet
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    /// End after N lines
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Address of the user service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = USER_VARIABLE, default_value = USER_ADDRESS)]
    addr: Addresses,

    /// Longest time without a reachable instance, e.g. 10s or 1h; then exit with code 3
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// Watches the users until `--count` versions are printed, Ctrl-C, or closed output.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let contracts = Contracts::compiled_in();
    let mut versions = VersionWatch::new(args.credentials.endpoints(&args.addr)?, args.ids, args.timeout);
    // Created once: a signal that arrives while an event is printed must not be lost.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let mut missing = args.count.map(NonZeroU64::get);
    while missing != Some(0) {
        let event = tokio::select! {
            event = versions.next() => event?,
            _ = interrupts.recv() => return Ok(()),
        };
        let version = match event {
            WatchEvent::Version(version) => version,
            WatchEvent::CaughtUp if args.output == Output::Table => {
                out::note("caught up: the following lines are changes");
                continue;
            }
            WatchEvent::Degraded(true) => {
                out::note("degraded: changes may arrive late, Redis or Postgres is unavailable to the service");
                continue;
            }
            WatchEvent::CaughtUp | WatchEvent::Degraded(false) => continue,
        };
        missing = missing.map(|missing| missing - 1);
        let read = match args.output {
            Output::Table => out::stream(line(&version)),
            output => out::stream(output.json(&contracts.json("tidings.user.v1.UserVersion", &version))),
        };
        if !read {
            return Ok(()); // standard output is closed
        }
    }
    Ok(())
}

fn line(UserVersion { id, version, absent }: &UserVersion) -> String {
    let now = display::timestamp(Some(SystemTime::now().into()));
    match (version, absent) {
        (0, _) => format!("{now}  {id}  there is no such user"),
        (version, true) => format!("{now}  {id}  version {version}, deleted"),
        (version, false) => format!("{now}  {id}  version {version}"),
    }
}
