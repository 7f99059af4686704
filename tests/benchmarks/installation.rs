//! Tidings as it is measured: the four services, each a process, on a Redis and on a Postgres that waits for its disk.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_client::Addresses;
use tidings_devstack::{Devstack, Options};
use tokio::time::{Instant, sleep};

use crate::process::{Process, free_port, listens};

/// The command, built as this was.
const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings-node");

/// What runs: its name here, its service, and flags that it has beyond the usual.
const INSTANCES: [(&str, &str, &[&str]); 6] = [
    ("broadcast", "broadcast", &[]),
    ("user", "user", &[]),
    ("another user", "user", &[]),
    // Every read of a cached user is a look into Redis.
    ("user without memory", "user", &["--user-near-bytes=0"]),
    ("history", "history", &[]),
    ("lock", "lock", &[]),
];

/// A running installation.
pub(crate) struct Installation {
    stack: Devstack,
    services: Vec<(&'static str, Addresses, Process)>,
}

impl Installation {
    /// Starts it with no data.
    pub(crate) async fn start(dir: &Path) -> Self {
        eprintln!("starting Tidings on a Postgres that waits for its disk ...");
        let stack = Devstack::start(Options { fresh: true, ..Options::kept(dir) }).await.unwrap();
        let mut installation = Self { stack, services: Vec::new() };
        for service in ["user", "history", "lock"] {
            installation.stack.postgres().create_database(&format!("tidings_{service}")).await.unwrap();
        }
        let broadcast = free_port();
        for (name, service, flags) in INSTANCES {
            let port = if service == "broadcast" { broadcast } else { free_port() };
            let process = installation.serve(name, service, flags, port, broadcast);
            installation.services.push((name, format!("127.0.0.1:{port}").parse().unwrap(), process));
        }
        for (_, address, _) in &installation.services {
            let port = address.to_string().rsplit(':').next().and_then(|port| port.parse().ok());
            listens(port.unwrap()).await;
        }
        installation
    }

    fn serve(&self, name: &str, service: &str, flags: &[&str], port: u16, broadcast: u16) -> Process {
        let mut command = Command::new(TIDINGS);
        command.args(["serve", service, "--stop-with-stdin"]).args(flags);
        if service != "broadcast" {
            let database = self.stack.postgres().url(&format!("tidings_{service}"));
            command.env("TIDINGS_MIGRATE", "true").env("TIDINGS_POSTGRES_URL", database);
        }
        if service == "history" {
            command.env("TIDINGS_BROADCAST_ADDR", format!("127.0.0.1:{broadcast}"));
        }
        let child = command
            .env("TIDINGS_LISTEN", format!("127.0.0.1:{port}"))
            .env("TIDINGS_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("TIDINGS_REDIS_URL", self.stack.redis().url())
            .env("TIDINGS_LOCK_FRESH_START", "true")
            .stdin(Stdio::piped()) // it ends with us, however we end
            .stdout(Stdio::null())
            .stderr(File::create(self.stack.dir().join(format!("{name}.log"))).unwrap())
            .spawn();
        Process(child.unwrap())
    }

    /// Where an instance is; those of the usual settings have the names of their services.
    pub(crate) fn address(&self, instance: &str) -> &Addresses {
        let (_, address, _) = self.services.iter().find(|(name, _, _)| *name == instance).unwrap();
        address
    }

    /// Where both instances of user are that have a memory.
    pub(crate) fn both_users(&self) -> Addresses {
        format!("{},{}", self.address("user"), self.address("another user")).parse().unwrap()
    }

    /// The Redis that the services use.
    pub(crate) fn redis(&self) -> String {
        self.stack.redis().url()
    }

    /// A new database in the Postgres that the services use.
    pub(crate) async fn database(&self, name: &str) -> String {
        self.stack.postgres().create_database(name).await.unwrap();
        self.stack.postgres().url(name)
    }

    /// Waits until nothing of what was called is still being worked on: history's relay has published everything. Else
    /// whoever is measured next would pay for it.
    pub(crate) async fn quiet(&self) {
        const PATIENCE: Duration = Duration::from_mins(2);
        const PENDING: &str = "SELECT EXISTS (SELECT 1 FROM outbox WHERE park_time IS NULL)";
        let mut history = PgConnection::connect(&self.stack.postgres().url("tidings_history")).await.unwrap();
        let begin = Instant::now();
        while sqlx::query_scalar::<_, bool>(PENDING).fetch_one(&mut history).await.unwrap() {
            assert!(begin.elapsed() < PATIENCE, "the relay does not catch up");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        drop(self.services);
        self.stack.stop().await;
    }
}
