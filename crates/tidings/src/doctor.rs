//! `tidings doctor`: checks an installation, and gives advice for each check that fails.
//!
//! Reading order: `findings` collects and renders the results. `instance` checks each instance of
//! each service from outside, with `admin` also at its port for metrics and probes. `user` creates,
//! changes and deletes a user. `postgres` and `redis` check the stores of the user service.

mod admin;
mod findings;
mod instance;
mod postgres;
mod redis;
mod user;

use std::path::PathBuf;
use std::time::Duration;

use tidings_client::{Address, Addresses};
use tidings_postgres::PostgresUrl;
use tidings_redis::RedisUrl;

use self::findings::{CheckVerdict, DoctorFindings};
use self::instance::{CheckedInstance, ServiceName};
use crate::args::{self, Output};
use crate::{address, credentials, exit, out};

const MORE: &str = "\
Each instance of each service is checked for reachability, health (its own and that
of its dependencies), access with the given credentials, clock and version. Then a
user doctor-... is created, read through every cache of every instance, changed and
deleted; its id stays taken, like that of any deleted user.

With --user-postgres-url and --user-redis-url the stores of the user service are
checked too: versions, durability of acknowledged writes, migrations, outbox, and
credentials, permissions, memory and eviction policy of Redis.

Each line is one check: ok, warn or FAIL, the finding, and advice. With json and
jsonl each check is an object.

Exit codes: 0 no check failed, 1 a check failed, 2 wrong usage, 3 the result could
not be written.

Examples:
  tidings doctor
  tidings doctor --service user --read-only
  tidings doctor --user-addr one:7401,two:7401 --output jsonl
  tidings doctor --user-postgres-url postgres://tidings@db/tidings_user";

/// Check an installation, with advice for each check that fails.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// Check only these services, several separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "user,history,lock,broadcast")]
    service: Vec<ServiceName>,

    /// Do not create a user
    #[arg(long)]
    read_only: bool,

    /// Address of the user service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::USER_VARIABLE, default_value = address::USER_ADDRESS)]
    user_addr: Addresses,

    /// Address of the history service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::HISTORY_VARIABLE, default_value = address::HISTORY_ADDRESS)]
    history_addr: Addresses,

    /// Address of the lock service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::LOCK_VARIABLE, default_value = address::LOCK_ADDRESS)]
    lock_addr: Addresses,

    /// Address of the broadcast service, HOST:PORT or https://HOST:PORT; several separated by
    /// commas
    #[arg(long, value_name = "ADDRESS", env = address::BROADCAST_VARIABLE, default_value = address::BROADCAST_ADDRESS)]
    broadcast_addr: Addresses,

    /// Offset from an instance's gRPC port to its port for metrics and probes (plain HTTP); 0: skip
    /// the checks of that port
    #[arg(long, value_name = "N", default_value = "2000")]
    admin_above: u16,

    /// Database URL of the user service, to check its Postgres; may hold a password, so it is never
    /// shown
    #[arg(long, value_name = "URL", env = "TIDINGS_USER_POSTGRES_URL", hide_env_values = true)]
    user_postgres_url: Option<PostgresUrl>,

    /// Redis URL of the user service, to check its Redis; may hold a password, so it is never shown
    #[arg(long, value_name = "URL", env = "TIDINGS_USER_REDIS_URL", hide_env_values = true)]
    user_redis_url: Option<RedisUrl>,

    /// PEM file with the CA certificates of that Redis, for rediss:// with a private CA
    #[arg(long, value_name = "PATH", env = "TIDINGS_USER_REDIS_CA")]
    user_redis_ca: Option<PathBuf>,

    /// Prefix of the keys in that Redis, as the user service has it
    #[arg(long, value_name = "TEXT", env = "TIDINGS_REDIS_PREFIX", default_value = "tidings")]
    user_redis_prefix: String,

    /// Longest wait for one response, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// Error of `tidings doctor`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// At least one check failed.
    #[error("{failed} of {all} checks failed")]
    Failed { failed: usize, all: usize },
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Credentials(_) => exit::USAGE,
            Self::Failed { .. } => exit::NO,
        }
    }
}

/// Runs all checks and prints the findings.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut findings = DoctorFindings::default();
    let mut users = Vec::new();
    for name in [ServiceName::User, ServiceName::History, ServiceName::Lock, ServiceName::Broadcast] {
        if !args.service.contains(&name) {
            continue;
        }
        for instance in args.instances(name)? {
            let is_usable = instance.check(&mut findings).await;
            if name == ServiceName::User && is_usable {
                users.push(instance);
            }
        }
    }
    instance::compare_versions(&mut findings);
    if !args.read_only && !users.is_empty() {
        user::check(&users, &mut findings).await;
    }
    if let Some(url) = args.user_postgres_url {
        postgres::check(url, args.timeout, &mut findings).await;
    }
    if let Some(url) = args.user_redis_url {
        let redis = tidings_redis::Args {
            redis_ca: args.user_redis_ca,
            redis_prefix: args.user_redis_prefix,
            ..tidings_redis::Args::new(url)
        };
        redis::check(redis, args.timeout, &mut findings).await;
    }
    out::result(findings.render(args.output));
    match findings.count(CheckVerdict::Fail) {
        0 => Ok(()),
        failed => Err(Error::Failed { failed, all: findings.len() }),
    }
}

impl Args {
    fn instances(&self, name: ServiceName) -> Result<Vec<CheckedInstance>, Error> {
        let addresses = match name {
            ServiceName::User => &self.user_addr,
            ServiceName::History => &self.history_addr,
            ServiceName::Lock => &self.lock_addr,
            ServiceName::Broadcast => &self.broadcast_addr,
        };
        let instance = |address: &Address| {
            // One endpoint per address: each instance is checked by itself.
            let endpoint = self.credentials.endpoints(&Addresses::from(address.clone()))?.pick();
            Ok(CheckedInstance::new(name, endpoint, self.admin_above, self.timeout))
        };
        addresses.iter().map(instance).collect()
    }
}
