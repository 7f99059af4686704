//! `tidings user`: create, read, change and delete users, and bring many in from a file.

mod create;
mod delete;
mod field;
mod get;
mod import;
mod list;
mod show;
mod update;
mod watch;

use std::io;
use std::time::Duration;

use prost::Message;
use tidings_client::{Addresses, Caller};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, GetUserRequest, User};
use tonic::Code;

use crate::address::{USER_ADDRESS, USER_VARIABLE};
use crate::cli::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, error, out};

const EXAMPLES: &str = "\
Examples:
  tidings user create ada --display-name 'Ada Lovelace' --age 36
  tidings user get ada
  tidings user update ada --set bio='wrote the first program' --clear age
  tidings user delete ada
  tidings user list --handle-prefix ad
  tidings user watch ada bob
  tidings user import staff.csv --rejects refused.csv";

/// Create, read, change and delete users, and import them from files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Create(create::Args),
    Get(get::Args),
    Update(update::Args),
    Delete(delete::Args),
    Watch(watch::Args),
    List(list::Args),
    Import(import::Args),
}

/// What all verbs want to know of the service.
#[derive(Debug, clap::Args)]
struct Service {
    /// Where the user service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = USER_VARIABLE, default_value = USER_ADDRESS)]
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

    /// Prints a message of the contract for programs; people get `table`.
    fn print(&self, name: &str, message: &impl Message, table: impl FnOnce() -> String) {
        out::result(match self.output {
            Output::Table => table(),
            output => output.json(&Contracts::compiled_in().json(&format!("tidings.user.v1.{name}"), message)),
        });
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
    /// Some of those asked for are not there.
    #[error("no such user: {}", .0.join(", "))]
    Absent(Vec<String>),
    /// Some of those asked for could not be read; the others were printed.
    #[error("can not be read now: {}{}\n  {cause}", .unread.join(", "), also_absent(.absent))]
    Unread { unread: Vec<String>, absent: Vec<String>, cause: tidings_client::Error },
    /// A version belongs to one user.
    #[error("--min-version is a version of one user, and several were named")]
    VersionOfSeveral,
    /// A field is named twice.
    #[error("{0} is to be changed twice: give each field once, to --set or to --clear")]
    Twice(String),
    /// The user has another version than the change is meant for.
    #[error("{id} has version {found}, not {expected}; nothing was changed")]
    Moved { id: String, found: i64, expected: i64 },
    /// The operating system gave no ear for Ctrl-C.
    #[error("can not listen for signals: {0}")]
    Signals(io::Error),
    /// An import did not bring everything in.
    #[error(transparent)]
    Import(#[from] import::Error),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Service(error) if says_no(error) => error::NO,
            Self::Service(error) if is_wrong_usage(error) => error::USAGE,
            Self::Unread { cause, .. } if is_wrong_usage(cause) => error::USAGE,
            Self::Service(_) | Self::Unread { .. } | Self::Signals(_) => error::SERVICE,
            Self::Absent(_) | Self::Moved { .. } => error::NO,
            Self::Credentials(_) | Self::VersionOfSeveral | Self::Twice(_) => error::USAGE,
            Self::Import(error) => error.exit_code(),
        }
    }
}

fn also_absent(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!("; no such user: {}", ids.join(", ")) }
}

/// Whether the service understood and answered from what it stores.
fn says_no(error: &tidings_client::Error) -> bool {
    error.contradiction().is_some() || error.refused().is_some_and(|failure| failure.code == Code::Aborted)
}

/// Whether the service refused what it was asked: it refuses it always, and did nothing.
fn is_wrong_usage(error: &tidings_client::Error) -> bool {
    error.refused().is_some_and(|failure| failure.code == Code::InvalidArgument)
}

/// Does what the verb says.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Create(args) => create::run(args).await,
        Verb::Get(args) => get::run(args).await,
        Verb::Update(args) => update::run(args).await,
        Verb::Delete(args) => delete::run(args).await,
        Verb::Watch(args) => watch::run(args).await,
        Verb::List(args) => list::run(args).await,
        Verb::Import(args) => Ok(import::run(args).await?),
    }
}

/// Reads a user as Postgres has it, at least at this version: what a change is made of must not be old.
async fn read(caller: &Caller, id: &str, min_version: i64) -> Result<User, Error> {
    let request = GetUserRequest { id: id.to_owned(), min_version, consistency: Consistency::Strong.into() };
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    Ok(caller.call("GetUser", &request, send).await?.user.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tidings_status::Failure;
    use tonic::Status;

    use super::*;

    #[test]
    fn what_the_service_refuses_ends_as_the_help_says() {
        for (code, expected) in [
            (Code::NotFound, error::NO),
            (Code::AlreadyExists, error::NO),
            (Code::Aborted, error::NO),
            (Code::InvalidArgument, error::USAGE),
            (Code::PermissionDenied, error::SERVICE),
            (Code::Internal, error::SERVICE),
        ] {
            let failure = Box::new(Failure::from(&Status::new(code, "")));
            let address = USER_ADDRESS.parse::<tidings_client::Address>().unwrap();
            let error = tidings_client::Error::Refused { method: "CreateUser", address, failure };
            assert_eq!(Error::Service(error).exit_code(), expected, "{code:?}");
        }
    }
}
