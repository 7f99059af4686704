//! The private Postgres: one cluster, any number of databases.

mod cluster;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::binaries::Binaries;
use crate::place::Place;
use crate::server::{Recipe, Server};
use crate::{Error, port};

/// The superuser of the cluster.
const ROLE: &str = "tidings";

/// The database that is there from the beginning.
const MAINTENANCE: &str = "postgres";

/// The answer to `CREATE DATABASE` when the database exists.
const DUPLICATE_DATABASE: &str = "42P04";

/// How long one attempt to connect may take before the next.
const ATTEMPT: Duration = Duration::from_secs(2);

/// A Postgres server on loopback, with the superuser `tidings` and no passwords.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
    /// Where the data really lie, symlinks resolved.
    data: std::path::PathBuf,
    /// Which templates are ready; locked while one is made.
    templates: Mutex<HashSet<String>>,
}

impl Postgres {
    pub(crate) async fn launch(place: Arc<Place>, binaries: &Binaries, durable: bool) -> Result<Self, Error> {
        let data = cluster::prepare(Arc::clone(&place), &binaries.initdb, durable).await?;
        let port = port::free();
        let recipe = Recipe {
            name: "postgres",
            program: binaries.postgres.clone(),
            arguments: cluster::arguments(&data, port, durable),
            signals: "INT QUIT", // fast, then immediate shutdown
        };
        let server = Server::new(recipe, place);
        let templates = Mutex::default();
        let postgres = Self { server, port, data, templates };
        postgres.start().await?;
        Ok(postgres)
    }

    /// Returns the connection URL of `database`, e.g. `postgres://tidings@127.0.0.1:20041/tidings_user`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the connection URL of the database that every cluster has; for `CREATE DATABASE` and the like.
    pub fn maintenance_url(&self) -> String {
        self.url(MAINTENANCE)
    }

    /// Returns the port, the same for the life of the stack.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id of the postmaster, `None` if it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Reports whether the server runs; a paused one does.
    pub fn running(&self) -> bool {
        self.server.running()
    }

    /// Starts the server after its end, with the same data; waits until it has recovered and answers.
    ///
    /// Does nothing but wait if it runs.
    pub async fn start(&self) -> Result<(), Error> {
        if !self.running() {
            cluster::make_way(&self.data).await?;
        }
        let answers = || async { self.answers().await };
        self.server.start(answers).await
    }

    /// Kills postmaster and backends at once, as a crash of the machine would; returns when all are gone.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Shuts the server down (fast, not waiting for clients), and waits until it has ended.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Stops postmaster and backends where they are; connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Creates an empty database, unless it exists.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        match self.execute(&format!("CREATE DATABASE {}", quoted(name))).await {
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some(DUPLICATE_DATABASE) => Ok(()),
            result => result.map_err(Error::sql(format!("create database {name}"))),
        }
    }

    /// Creates a database as a copy of `template`, which nobody may be connected to. An error if it exists.
    pub async fn create_database_from(&self, template: &str, name: &str) -> Result<(), Error> {
        let statement = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
        let created = self.execute(&statement).await;
        created.map_err(Error::sql(format!("create database {name} from {template}")))
    }

    /// Drops a database if it exists, and ends the connections to it.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        let dropped = self.execute(&statement).await;
        dropped.map_err(Error::sql(format!("drop database {name}")))
    }

    /// Applies `migrations` to a database and leaves no connection behind.
    pub async fn migrate(&self, database: &str, migrations: &Migrator) -> Result<(), Error> {
        let unreached = Error::sql(format!("connect to {database}"));
        let mut connection = PgConnection::connect(&self.url(database)).await.map_err(unreached)?;
        let migrated = migrations.run(&mut connection).await;
        let _ = connection.close().await;
        migrated.map_err(|cause| Error::Migrate { database: database.to_owned(), cause })
    }

    /// Returns the name of a template with `migrations` applied, made by whoever asks first.
    pub(crate) async fn template(&self, label: &str, migrations: &Migrator) -> Result<String, Error> {
        let name = format!("{label}_template");
        let mut templates = self.templates.lock().await;
        if !templates.contains(&name) {
            self.drop_database(&name).await?;
            self.create_database(&name).await?;
            self.migrate(&name, migrations).await?;
            templates.insert(name.clone());
        }
        Ok(name)
    }

    pub(crate) fn let_go(&self) {
        self.server.let_go();
    }

    async fn execute(&self, statement: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.maintenance_url()).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
        let _ = connection.close().await;
        done.map(drop)
    }

    async fn answers(&self) -> bool {
        match timeout(ATTEMPT, PgConnection::connect(&self.maintenance_url())).await {
            Ok(Ok(connection)) => connection.close().await.is_ok(),
            _ => false,
        }
    }
}

/// Quotes an identifier; database names come from people and test names.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
