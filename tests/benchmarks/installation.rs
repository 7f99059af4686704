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
        let broadcast = free_port();
        for (name, port) in
            [("broadcast", broadcast), ("user", free_port()), ("history", free_port()), ("lock", free_port())]
        {
            let service = installation.serve(name, port, broadcast).await;
            installation.services.push(service);
        }
        for (_, address, _) in &installation.services {
            let port = address.to_string().rsplit(':').next().and_then(|port| port.parse().ok());
            listens(port.unwrap()).await;
        }
        installation
    }

    async fn serve(&self, name: &'static str, port: u16, broadcast: u16) -> (&'static str, Addresses, Process) {
        let database = format!("tidings_{name}");
        self.stack.postgres().create_database(&database).await.unwrap();
        let mut command = Command::new(TIDINGS);
        command.args(["serve", name, "--stop-with-stdin"]);
        if name != "broadcast" {
            command.env("TIDINGS_MIGRATE", "true").env("TIDINGS_POSTGRES_URL", self.stack.postgres().url(&database));
        }
        if name == "history" {
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
        (name, format!("127.0.0.1:{port}").parse().unwrap(), Process(child.unwrap()))
    }

    /// Where a service is.
    pub(crate) fn address(&self, service: &str) -> &Addresses {
        let (_, address, _) = self.services.iter().find(|(name, _, _)| *name == service).unwrap();
        address
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
