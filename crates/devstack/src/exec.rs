//! `tidings-devstack exec`: runs a command with a temporary stack and migrated databases.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::str::FromStr;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::migrate::Migrator;
use tidings_devstack::{Devstack, Error, Options};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Runs COMMAND with a new Postgres and a new Redis, and exits with its status.
///
/// The servers listen on free ports of 127.0.0.1. They are stopped and their data
/// removed afterwards. COMMAND gets their URLs in its environment:
///
///   TIDINGS_REDIS_URL               the Redis
///   TIDINGS_DEVSTACK_POSTGRES_URL   the database `postgres`, as superuser
///   TIDINGS_<NAME>_DATABASE_URL     the database `tidings_<name>` of each --migrate
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Exec {
    /// Creates the database `tidings_<NAME>` and applies the migrations in DIR; may be given more
    /// than once.
    #[arg(long, value_name = "NAME=DIR")]
    migrate: Vec<Migration>,
    /// The command to run, after `--`.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A database to create, and the directory of its migrations.
#[derive(Debug, Clone)]
struct Migration {
    name: String,
    dir: PathBuf,
}

impl FromStr for Migration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, dir) = text.split_once('=').ok_or("expected NAME=DIR, e.g. user=crates/user/migrations")?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err("expected a NAME of a-z, 0-9 and _");
        }
        let (name, dir) = (name.to_owned(), dir.into());
        Ok(Self { name, dir })
    }
}

impl Migration {
    fn database(&self) -> String {
        format!("tidings_{}", self.name)
    }

    fn variable(&self) -> String {
        format!("TIDINGS_{}_DATABASE_URL", self.name.to_uppercase())
    }

    async fn apply(&self, stack: &Devstack) -> Result<(), Error> {
        let database = self.database();
        let migrations = Migrator::new(Path::new(&self.dir)).await;
        let migrations = migrations
            .map_err(|cause| Error::Migrate { database: format!("{database} from {}", self.dir.display()), cause })?;
        stack.postgres().create_database(&database).await?;
        stack.postgres().migrate(&database, &migrations).await
    }
}

impl Exec {
    pub(crate) async fn run(self) -> Result<ExitCode, Error> {
        let stack = Devstack::start(Options::temporary()).await?;
        for migration in &self.migrate {
            migration.apply(&stack).await?;
        }
        let status = self.run_command(&stack).await;
        stack.stop().await;
        status
            .map(exit_code)
            .map_err(|cause| Error::System { what: format!("run {}", self.command[0].display()), cause })
    }

    async fn run_command(&self, stack: &Devstack) -> std::io::Result<ExitStatus> {
        let postgres = stack.postgres();
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_DEVSTACK_POSTGRES_URL", postgres.maintenance_url());
        for migration in &self.migrate {
            command.env(migration.variable(), postgres.url(&migration.database()));
        }
        // Before this point, a signal ends this process and the guards stop the servers. From here
        // on the command ends first.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut child = command.spawn()?;
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = interrupt.recv() => {} // the terminal sends it to the command as well
                _ = terminate.recv() => forward(&child, Signal::TERM),
            }
        }
    }
}

fn forward(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// Returns the exit code as shells do: 128 + the signal that ended the command.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
