//! The measured installation: the services as processes of their own, on a Redis and a Postgres
//! that waits for its disk.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_client::Addresses;
use tidings_devstack::{Devstack, Options};
use tokio::time::{Instant, sleep};

use crate::process::{ChildProcess, free_port, wait_for_port};

/// The instances: name, service, and flags besides the defaults.
const INSTANCES: [(&str, &str, &[&str]); 6] = [
    ("broadcast", "broadcast", &[]),
    ("user", "user", &[]),
    ("second user", "user", &[]),
    // Reads every cached user from Redis.
    ("user without local cache", "user", &["--user-local-cache-bytes=0"]),
    ("history", "history", &[]),
    ("lock", "lock", &[]),
];

/// A running installation.
pub(crate) struct Installation {
    tidings: PathBuf,
    stack: Devstack,
    services: Vec<(&'static str, Addresses, ChildProcess)>,
}

impl Installation {
    /// Starts the installation with empty databases.
    ///
    /// `tidings` is the command that runs the services.
    pub(crate) async fn start(tidings: PathBuf, dir: &Path) -> Self {
        eprintln!("starting Tidings on a Postgres that waits for its disk ...");
        let stack = Devstack::start(Options { fresh: true, ..Options::kept(dir) }).await.unwrap();
        let mut installation = Self { tidings, stack, services: Vec::new() };
        for service in ["user", "history", "lock"] {
            installation.stack.postgres().create_database(&format!("tidings_{service}")).await.unwrap();
        }
        let broadcast_port = free_port();
        for (name, service, flags) in INSTANCES {
            let port = if service == "broadcast" { broadcast_port } else { free_port() };
            let process = installation.serve(name, service, flags, port, broadcast_port);
            installation.services.push((name, format!("127.0.0.1:{port}").parse().unwrap(), process));
        }
        for (_, address, _) in &installation.services {
            let port = address.to_string().rsplit(':').next().and_then(|port| port.parse().ok());
            wait_for_port(port.unwrap()).await;
        }
        installation
    }

    fn serve(&self, name: &str, service: &str, flags: &[&str], port: u16, broadcast_port: u16) -> ChildProcess {
        let mut command = Command::new(&self.tidings);
        command.args(["serve", service, "--stop-with-stdin"]).args(flags);
        if service != "broadcast" {
            let database = self.stack.postgres().url(&format!("tidings_{service}"));
            command.env("TIDINGS_MIGRATE", "true").env("TIDINGS_POSTGRES_URL", database);
        }
        if service == "history" {
            command.env("TIDINGS_BROADCAST_ADDR", format!("127.0.0.1:{broadcast_port}"));
        }
        let child = command
            .env("TIDINGS_LISTEN", format!("127.0.0.1:{port}"))
            .env("TIDINGS_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("TIDINGS_REDIS_URL", self.stack.redis().url())
            .env("TIDINGS_LOCK_FRESH_START", "true")
            .stdin(Stdio::piped()) // the service ends with this process, even after a crash
            .stdout(Stdio::null())
            .stderr(File::create(self.stack.dir().join(format!("{name}.log"))).unwrap())
            .spawn();
        ChildProcess(child.unwrap())
    }

    /// Returns the address of an instance of [`INSTANCES`].
    pub(crate) fn address(&self, instance: &str) -> &Addresses {
        let (_, address, _) = self.services.iter().find(|(name, _, _)| *name == instance).unwrap();
        address
    }

    /// Returns the addresses of both instances of user with a local cache.
    pub(crate) fn both_users(&self) -> Addresses {
        format!("{},{}", self.address("user"), self.address("second user")).parse().unwrap()
    }

    /// Returns the URL of the Redis of the services.
    pub(crate) fn redis(&self) -> String {
        self.stack.redis().url()
    }

    /// Creates a database in the Postgres of the services; returns its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        self.stack.postgres().create_database(name).await.unwrap();
        self.stack.postgres().url(name)
    }

    /// Waits until the relay of history has published all messages: its work would slow down the
    /// next measurement.
    pub(crate) async fn wait_for_relay(&self) {
        const PATIENCE: Duration = Duration::from_mins(2);
        const PENDING: &str = "SELECT EXISTS (SELECT 1 FROM outbox WHERE park_time IS NULL)";
        let mut history = PgConnection::connect(&self.stack.postgres().url("tidings_history")).await.unwrap();
        let begun = Instant::now();
        while sqlx::query_scalar::<_, bool>(PENDING).fetch_one(&mut history).await.unwrap() {
            assert!(begun.elapsed() < PATIENCE, "the relay does not catch up");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the services and their servers.
    pub(crate) async fn stop(self) {
        drop(self.services);
        self.stack.stop().await;
    }
}

/// Returns the path of the command, built with the same profile as this process.
pub(crate) fn command() -> PathBuf {
    // Cargo puts programs into a directory, and benchmarks into its subdirectory `deps`.
    let benchmarks = env::current_exe().unwrap();
    let command = benchmarks.ancestors().nth(2).unwrap().join("tidings");
    assert!(command.exists(), "{} does not exist: run `make bench`, which builds it", command.display());
    command
}
