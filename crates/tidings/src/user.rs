//! `tidings user`: creates, reads, changes, deletes, lists and watches users, and imports them
//! from files.

mod create;
mod delete;
pub(crate) mod error;
mod field;
mod get;
mod import;
mod list;
mod service;
mod show;
mod update;
mod watch;

use self::error::Error;

const EXAMPLES: &str = "\
Examples:
  tidings user create ada --display-name 'Ada Lovelace' --age 36
  tidings user get ada
  tidings user update ada --set bio='wrote the first program' --clear age
  tidings user delete ada
  tidings user list --handle-prefix ad
  tidings user watch ada bob
  tidings user import staff.csv --rejects refused.csv";

/// Create, read, change, delete, list, watch and import users.
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

/// Runs the verb.
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
