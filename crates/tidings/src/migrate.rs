//! `tidings migrate`: the schema of one service or of all, the same as `migrate` of the programs
//! `tidings-<service>` of the images.

use std::process::ExitCode;

use tidings_postgres::PostgresUrl;
use tidings_service::Service;

use crate::{exit, out};

const MORE: &str = "\
Migrations only go forward, and a service of the release before works with the new
schema. It is safe to repeat the command and to run it several times at once. It
prints a line for each service; the log is on standard error.

URLs may hold passwords, so they are never shown. A variable with the suffix _FILE
names a file that holds the URL. Broadcast has no database. `all` uses the default
limits of connections and statements; the command of one service takes their flags.

Exit codes: 0 every schema is up to date, 2 wrong usage, 3 a schema was not migrated,
or the result could not be written.

Examples:
  tidings migrate user --postgres-url postgres://tidings@db/tidings_user
  TIDINGS_POSTGRES_URL_FILE=/run/secrets/lock-url tidings migrate lock
  tidings migrate all --user-postgres-url postgres://tidings@db/tidings_user \\
    --history-postgres-url postgres://tidings@db/tidings_history \\
    --lock-postgres-url postgres://tidings@db/tidings_lock";

/// Apply pending migrations to the database of a service, or of all services
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// The service
    #[command(subcommand)]
    databases: MigrateCommand,
}

/// The services that have a database.
#[derive(Debug, clap::Subcommand)]
enum MigrateCommand {
    /// Migrate the database of the user service
    User(Box<tidings_postgres::Args>),
    /// Migrate the database of the history service
    History(Box<tidings_postgres::Args>),
    /// Migrate the database of the lock service
    Lock(Box<tidings_postgres::Args>),
    /// Migrate the databases of all services; a failure does not stop the others
    All(Box<DatabaseUrls>),
}

/// The databases of all services.
#[derive(Debug, clap::Args)]
struct DatabaseUrls {
    /// URL of the database of the user service
    #[arg(long = "user-postgres-url", value_name = "URL", env = "TIDINGS_USER_POSTGRES_URL", hide_env_values = true)]
    user: PostgresUrl,

    /// URL of the database of the history service
    #[arg(
        long = "history-postgres-url",
        value_name = "URL",
        env = "TIDINGS_HISTORY_POSTGRES_URL",
        hide_env_values = true
    )]
    history: PostgresUrl,

    /// URL of the database of the lock service
    #[arg(long = "lock-postgres-url", value_name = "URL", env = "TIDINGS_LOCK_POSTGRES_URL", hide_env_values = true)]
    lock: PostgresUrl,
}

/// Migrates the databases, each on a runtime of its own, and returns the exit code.
pub(crate) fn run(args: Args) -> u8 {
    match args.databases {
        MigrateCommand::User(args) => migrate::<tidings_user::Config>("user", &args),
        MigrateCommand::History(args) => migrate::<tidings_history::Config>("history", &args),
        MigrateCommand::Lock(args) => migrate::<tidings_lock::Config>("lock", &args),
        MigrateCommand::All(urls) => {
            let [user, history, lock] = [urls.user, urls.history, urls.lock].map(tidings_postgres::Args::new);
            let user = migrate::<tidings_user::Config>("user", &user);
            if user == exit::USAGE {
                return user; // a setting that all services share
            }
            let history = migrate::<tidings_history::Config>("history", &history);
            user.max(history).max(migrate::<tidings_lock::Config>("lock", &lock))
        }
    }
}

/// Migrates one database and prints the outcome, unless a setting is invalid; returns the exit
/// code.
fn migrate<S: Service>(service: &str, args: &tidings_postgres::Args) -> u8 {
    let ended = tidings_service::migrate::<S>(args);
    if ended == ExitCode::from(exit::USAGE) {
        return exit::USAGE;
    }
    let migrated = ended == ExitCode::SUCCESS;
    let (code, outcome) =
        if migrated { (exit::DONE, "up to date") } else { (exit::SERVICE, "not migrated, see the log") };
    out::result(format_args!("{service:<9} {outcome}"));
    code
}
