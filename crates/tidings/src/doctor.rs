//! `tidings doctor`: looks whether an installation does what it should, and says what to do where it does not.
//!
//! Reading order: `findings` is what is found and how it is told; `instance` looks at each instance of each service from outside,
//! by `admin` also at its port for machines; `user` makes a user, changes and deletes it; `postgres` and `redis` look at what
//! the user service stands on.

mod admin;
mod findings;
mod instance;
mod postgres;
mod redis;
mod user;

use std::time::Duration;

use tidings_client::{Address, Addresses};
use tidings_postgres::PostgresUrl;
use tidings_redis::RedisUrl;

use self::findings::{Findings, Verdict};
use self::instance::Instance;
use crate::cli::{self, Output};
use crate::{address, credentials, error, out};

const MORE: &str = "\
Every instance of every service is asked: can it be reached, is it healthy and
what it depends on too, may we call it, is its clock like ours, which version is
it. Then a user called doctor-... is created, read through every cache and every
instance, changed, and deleted; its id stays taken, as that of every deleted user.

With --user-postgres-url and --user-redis-url it also looks at what the user
service stands on: versions, what an acknowledgement survives, migrations, the
outbox, what Redis does when it is full.

Each line is a check: ok, warn (it works, but) or FAIL, what was found, and what to
do. With json and jsonl each is an object.

Exit codes: 0 nothing failed; 1 something did, 2 wrong usage, 3 it could not look.

Examples:
  tidings doctor
  tidings doctor --service user --read-only
  tidings doctor --user-addr one:7401,two:7401 --output jsonl
  tidings doctor --user-postgres-url postgres://tidings@db/tidings_user";

/// Look whether an installation works, and say what to do where it does not.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// Look at these services only, several separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "user,history,lock,broadcast")]
    service: Vec<Name>,

    /// Create nothing
    #[arg(long)]
    read_only: bool,

    /// Where the user service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::USER_VARIABLE, default_value = address::USER_ADDRESS)]
    user_addr: Addresses,

    /// Where the history service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::HISTORY_VARIABLE, default_value = address::HISTORY_ADDRESS)]
    history_addr: Addresses,

    /// Where the lock service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::LOCK_VARIABLE, default_value = address::LOCK_ADDRESS)]
    lock_addr: Addresses,

    /// Where the broadcast service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::BROADCAST_VARIABLE, default_value = address::BROADCAST_ADDRESS)]
    broadcast_addr: Addresses,

    /// How far above its own port an instance has that for metrics and probes, which is plain HTTP; 0 means do not ask there
    #[arg(long, value_name = "N", default_value = "2000")]
    admin_above: u16,

    /// URL of the database of the user service, to look at it, too; may hold a password, so it is never shown
    #[arg(long, value_name = "URL", env = "TIDINGS_USER_POSTGRES_URL", hide_env_values = true)]
    user_postgres_url: Option<PostgresUrl>,

    /// URL of the Redis of the user service, to look at it, too; may hold a password, so it is never shown
    #[arg(long, value_name = "URL", env = "TIDINGS_USER_REDIS_URL", hide_env_values = true)]
    user_redis_url: Option<RedisUrl>,

    /// Longest time to wait for one answer, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = cli::duration)]
    timeout: Duration,

    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    User,
    History,
    Lock,
    Broadcast,
}

/// Why it is not well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// Something does not do what it should.
    #[error("{failed} of {all} checks failed")]
    Failed {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Credentials(_) => error::USAGE,
            Self::Failed { .. } => error::NO,
        }
    }
}

/// Looks at everything, and tells what it finds.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut findings = Findings::default();
    let mut users = Vec::new();
    for name in [Name::User, Name::History, Name::Lock, Name::Broadcast] {
        if !args.service.contains(&name) {
            continue;
        }
        for instance in args.instances(name)? {
            let may_call = instance.look(&mut findings).await;
            if name == Name::User && may_call {
                users.push(instance);
            }
        }
    }
    instance::compare_versions(&mut findings);
    if !args.read_only && !users.is_empty() {
        user::look(&users, &mut findings).await;
    }
    if let Some(url) = args.user_postgres_url {
        postgres::look(url, args.timeout, &mut findings).await;
    }
    if let Some(url) = args.user_redis_url {
        redis::look(&url, args.timeout, &mut findings).await;
    }
    out::result(findings.render(args.output));
    match findings.count(Verdict::Fail) {
        0 => Ok(()),
        failed => Err(Error::Failed { failed, all: findings.len() }),
    }
}

impl Args {
    fn instances(&self, name: Name) -> Result<Vec<Instance>, Error> {
        let addresses = match name {
            Name::User => &self.user_addr,
            Name::History => &self.history_addr,
            Name::Lock => &self.lock_addr,
            Name::Broadcast => &self.broadcast_addr,
        };
        let instance = |address: &Address| {
            // Each is asked by itself, not whichever has its turn.
            let endpoint = self.credentials.endpoints(&Addresses::from(address.clone()))?.pick();
            Ok(Instance::new(name, endpoint, self.admin_above, self.timeout))
        };
        addresses.iter().map(instance).collect()
    }
}
