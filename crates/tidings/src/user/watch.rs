//! `tidings user watch`.

mod versions;

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use tidings_client::Addresses;
use tidings_proto::user::UserVersion;
use tokio::signal::ctrl_c;

use self::versions::{Event, Versions};
use super::Error;
use crate::address::{USER_ADDRESS, USER_VARIABLE};
use crate::cli::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, out, shown};

const MORE: &str = "\
A line of the table is: when it was heard, id, and the version the user came to.
First the version that each user has now, then each change; versions may be
skipped, and none is told twice or after a later one. With json and jsonl each is
an object with id, version, and absent if there is no such user. To see what was
changed: tidings user get ID --min-version VERSION.

It goes on across restarts of instances until --count lines were printed, Ctrl-C, or
nobody reads its output any more.

Examples:
  tidings user watch ada bob
  tidings user watch ada --count 2 --output jsonl";

/// Watch users, and print each version that they come to.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Whom, by id, 1 to 1000; there need not be such a user yet
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    /// End after so many lines
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Where the user service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = USER_VARIABLE, default_value = USER_ADDRESS)]
    addr: Addresses,

    /// Longest time without any instance that answers, e.g. 10s or 1h; then it ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = cli::duration)]
    timeout: Duration,

    /// How to print the versions
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// Watches until enough has come.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let contracts = Contracts::compiled_in();
    let mut versions = Versions::new(args.credentials.endpoints(&args.addr)?, args.ids, args.timeout);
    let mut missing = args.count.map(NonZeroU64::get);
    while missing != Some(0) {
        let event = tokio::select! {
            event = versions.next() => event?,
            stop = ctrl_c() => return stop.map_err(Error::Signals),
        };
        let version = match event {
            Event::Version(version) => version,
            Event::CaughtUp if args.output == Output::Table => {
                out::note("what follows are changes");
                continue;
            }
            Event::Late(true) => {
                out::note("changes may come late at the moment: the service misses Redis or Postgres");
                continue;
            }
            Event::CaughtUp | Event::Late(false) => continue,
        };
        missing = missing.map(|missing| missing - 1);
        let read = match args.output {
            Output::Table => out::stream(line(&version)),
            output => out::stream(output.json(&contracts.json("tidings.user.v1.UserVersion", &version))),
        };
        if !read {
            return Ok(()); // nobody reads any more
        }
    }
    Ok(())
}

fn line(UserVersion { id, version, absent }: &UserVersion) -> String {
    let now = shown::moment(Some(SystemTime::now().into()));
    match (version, absent) {
        (0, _) => format!("{now}  {id}  there is no such user"),
        (version, true) => format!("{now}  {id}  version {version}, deleted"),
        (version, false) => format!("{now}  {id}  version {version}"),
    }
}
