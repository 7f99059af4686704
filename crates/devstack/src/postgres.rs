//! The private Postgres: one cluster with any number of databases.

mod cluster;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::binaries::Binaries;
use crate::data_dir::DataDir;
use crate::error::Error;
use crate::port;
use crate::server::{ChildServer, ServerCommand};

/// Superuser of the cluster.
const ROLE: &str = "tidings";

/// Database that `initdb` creates.
const MAINTENANCE: &str = "postgres";

/// SQLSTATE of `CREATE DATABASE` for a database that exists.
const DUPLICATE_DATABASE: &str = "42P04";

/// Timeout of one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A Postgres server on loopback, with the superuser `tidings` and no passwords.
#[derive(Debug)]
pub struct PostgresServer {
    server: ChildServer,
    port: u16,
    /// Path of the data directory.
    data: std::path::PathBuf,
    /// Names of the templates that are ready; locked while one is created.
    templates: Mutex<HashSet<String>>,
}

impl PostgresServer {
    pub(crate) async fn launch(data_dir: Arc<DataDir>, binaries: &Binaries, durable: bool) -> Result<Self, Error> {
        let data = cluster::prepare(Arc::clone(&data_dir), &binaries.initdb, durable).await?;
        let port = port::free();
        let command = ServerCommand {
            name: "postgres",
            program: binaries.postgres.clone(),
            arguments: cluster::arguments(&data, port, durable),
            signals: "INT QUIT", // fast, then immediate shutdown
        };
        let server = ChildServer::new(command, data_dir);
        let templates = Mutex::default();
        let postgres = Self { server, port, data, templates };
        postgres.start().await?;
        Ok(postgres)
    }

    /// Returns the URL of `database`, e.g. `postgres://tidings@127.0.0.1:20041/tidings_user`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the connection URL of the database `postgres`, e.g. for `CREATE DATABASE`.
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

    /// Returns true if the server runs; a paused one does.
    pub fn running(&self) -> bool {
        self.server.running()
    }

    /// Starts the server, if it does not run, with the same data. Waits until it is ready.
    pub async fn start(&self) -> Result<(), Error> {
        if !self.running() {
            cluster::clear_stale_postmaster(&self.data).await?;
        }
        let is_ready = || async { self.is_ready().await };
        self.server.start(is_ready).await
    }

    /// Kills postmaster and backends, like a crash, and waits until they have ended.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Shuts the server down (mode fast), and waits until it has ended.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Suspends postmaster and backends (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Resumes a paused server (SIGCONT).
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Creates an empty database, if absent.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        match self.execute(&format!("CREATE DATABASE {}", quoted(name))).await {
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some(DUPLICATE_DATABASE) => Ok(()),
            result => result.map_err(Error::sql(format!("create database {name}"))),
        }
    }

    /// Creates a database as a copy of `template`, which must have no open connections.
    ///
    /// Fails if the database exists.
    pub async fn create_database_from(&self, template: &str, name: &str) -> Result<(), Error> {
        let statement = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
        let created = self.execute(&statement).await;
        created.map_err(Error::sql(format!("create database {name} from {template}")))
    }

    /// Copies a database, as a backup does; closes its connections.
    pub async fn back_up_database(&self, name: &str, copy: &str) -> Result<(), Error> {
        let failed = || Error::sql(format!("back up database {name}"));
        let set = |allowed: bool| format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}", quoted(name));
        self.execute(&set(false)).await.map_err(failed())?;
        let end = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'",
            name.replace('\'', "''")
        );
        self.execute(&end).await.map_err(failed())?;
        let copied = self.create_database_from(name, copy).await;
        self.execute(&set(true)).await.map_err(failed())?;
        copied
    }

    /// Replaces a database by a copy that was made earlier; closes its connections.
    pub async fn restore_database(&self, name: &str, copy: &str) -> Result<(), Error> {
        self.drop_database(name).await?;
        self.create_database_from(copy, name).await
    }

    /// Drops a database, if it exists, and closes its connections.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        let dropped = self.execute(&statement).await;
        dropped.map_err(Error::sql(format!("drop database {name}")))
    }

    /// Applies `migrations` to a database, and closes the connection.
    pub async fn migrate(&self, database: &str, migrations: &Migrator) -> Result<(), Error> {
        let failed = Error::sql(format!("connect to {database}"));
        let mut connection = PgConnection::connect(&self.url(database)).await.map_err(failed)?;
        let migrated = migrations.run(&mut connection).await;
        let _ = connection.close().await;
        migrated.map_err(|cause| Error::Migrate { database: database.to_owned(), cause })
    }

    /// Returns the name of a template with `migrations` applied. The first call creates it.
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

    pub(crate) fn request_stop(&self) {
        self.server.request_stop();
    }

    async fn execute(&self, statement: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.maintenance_url()).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
        let _ = connection.close().await;
        done.map(drop)
    }

    async fn is_ready(&self) -> bool {
        match timeout(CONNECT_TIMEOUT, PgConnection::connect(&self.maintenance_url())).await {
            Ok(Ok(connection)) => connection.close().await.is_ok(),
            _ => false,
        }
    }
}

/// Quotes an identifier, because database names come from users and tests.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
