//! The kinds of Postgres outages, and how to cause and end each of them.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options};
use tokio::time::sleep;

use crate::service::TestService;
use crate::support::print_figures;

/// A kind of outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostgresOutage {
    /// SIGSTOP: Postgres accepts connections and never replies.
    Stopped,
    /// SIGKILL of all Postgres processes.
    Killed,
    /// SIGQUIT: an immediate shutdown, which Postgres also does itself when a backend crashes.
    ShutDownImmediately,
    /// Postgres works, but other clients hold all connections.
    OutOfConnections,
    /// Postgres works, but another session has locked a table of the service.
    TableLocked,
    /// Postgres works, but its disk is full.
    DiskFull,
}

/// Resources that keep an outage going: connections that block others, a file that fills the disk.
#[derive(Default)]
pub(super) struct ActiveOutage {
    connections: Vec<PgConnection>,
    filler: Option<PathBuf>,
}

impl PostgresOutage {
    /// Returns true if Postgres itself stays healthy in this outage.
    pub(super) fn postgres_works(self) -> bool {
        self == Self::TableLocked
    }

    /// Returns the reason with which writes are refused during the outage.
    pub(super) fn reason(self) -> &'static str {
        if self == Self::TableLocked { "OVERLOADED" } else { "STORE_AWAY" }
    }

    /// Returns true if the outage prevents writes of a service. A full disk does not affect lock,
    /// which updates a single row in place.
    pub(super) fn blocks_writes_of(self, service: &str) -> bool {
        (self, service) != (Self::DiskFull, "lock")
    }

    pub(super) async fn begin(self, servers: &OutageStack, services: &[&TestService]) -> ActiveOutage {
        let postgres = servers.stack.postgres();
        let mut active = ActiveOutage::default();
        match self {
            Self::Stopped => postgres.pause(),
            Self::Killed => postgres.kill().await,
            Self::ShutDownImmediately => {
                kill_process(Pid::from_raw(postgres.pid().unwrap().cast_signed()).unwrap(), Signal::QUIT).unwrap();
                while postgres.running() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            Self::OutOfConnections => active.connections = take_all_connections(servers.stack).await,
            Self::TableLocked => {
                for service in services {
                    let mut connection = PgConnection::connect(&postgres.url(service.database())).await.unwrap();
                    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", written_table(service));
                    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
                    active.connections.push(connection);
                }
            }
            Self::DiskFull => active.filler = Some(servers.fill_disk()),
        }
        active
    }

    /// Ends the outage and waits until Postgres works.
    pub(super) async fn end(self, servers: &OutageStack, active: ActiveOutage) {
        if let Some(filler) = active.filler {
            fs::remove_file(filler).unwrap();
        }
        for connection in active.connections {
            connection.close().await.unwrap();
        }
        let postgres = servers.stack.postgres();
        postgres.resume();
        postgres.start().await.unwrap();
    }
}

/// Returns a table that the writes of a service need.
fn written_table(service: &TestService) -> &'static str {
    match service.database().split('_').next() {
        Some("user") => "user_account",
        Some("history") => "message",
        _ => "lock_epoch",
    }
}

/// Opens all connections that Postgres allows; terminates those of the services.
async fn take_all_connections(stack: &Devstack) -> Vec<PgConnection> {
    const TERMINATE_SERVICES: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                          WHERE backend_type = 'client backend' AND application_name LIKE 'tidings-%'";
    let url = stack.postgres().maintenance_url();
    let mut connections = vec![PgConnection::connect(&url).await.unwrap()];
    let all = sqlx::query_scalar("SELECT current_setting('max_connections')::int").fetch_one(&mut connections[0]);
    let all: i32 = all.await.unwrap();
    let all = usize::try_from(all).unwrap();
    while connections.len() < all {
        match PgConnection::connect(&url).await {
            Ok(connection) => connections.push(connection),
            Err(_) => drop(sqlx::query(TERMINATE_SERVICES).execute(&mut connections[0]).await.unwrap()),
        }
    }
    connections
}

/// Postgres and Redis of one test.
pub(super) struct OutageStack {
    pub(super) stack: &'static Devstack,
    /// A small in-memory file system that holds all databases; only for
    /// [`PostgresOutage::DiskFull`].
    disk: Option<PathBuf>,
}

impl OutageStack {
    /// Starts the servers for an outage; `None` if it needs a small file system that cannot be
    /// mounted here.
    pub(super) async fn start(outage: PostgresOutage) -> Option<Self> {
        let stack: &_ = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
        if outage != PostgresOutage::DiskFull {
            return Some(Self { stack, disk: None });
        }
        let owner = fs::metadata(stack.dir().join("postgres")).unwrap();
        let Some(disk) = mount(owner.uid(), owner.gid()) else {
            print_figures("a full disk: skipped, no file system can be mounted here\n");
            return None;
        };
        let mut postgres = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
        let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.display());
        sqlx::raw_sql(AssertSqlSafe(tablespace)).execute(&mut postgres).await.unwrap();
        // A new database uses the tablespace of its template.
        sqlx::raw_sql("ALTER DATABASE template1 SET TABLESPACE small").execute(&mut postgres).await.unwrap();
        Some(Self { stack, disk: Some(disk) })
    }

    /// Fills the disk with one file and returns its path.
    fn fill_disk(&self) -> PathBuf {
        let path = self.disk.as_ref().unwrap().join("filler");
        let mut filler = File::create(&path).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

/// Mounts a small file system owned by `uid` and `gid`; it is unmounted when this process ends.
fn mount(uid: u32, gid: u32) -> Option<PathBuf> {
    const MOUNTER: &str = r#"
        trap '' HUP INT QUIT TERM
        mount -t tmpfs -o "size=160m,mode=0700,uid=$2,gid=$3" tmpfs "$1" 2>/dev/null && echo mounted
        read -r _
        umount -l "$1" 2>/dev/null
        rmdir "$1"
    "#;
    let dir = tempfile::Builder::new().prefix("tidings-disk-").tempdir().unwrap().keep();
    let mut mounter = Command::new("sh")
        .args(["-c", MOUNTER, "keeper"])
        .arg(&dir)
        .args([uid.to_string(), gid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    BufReader::new(mounter.stdout.take().unwrap()).read_line(&mut output).unwrap();
    Box::leak(Box::new(mounter)); // keeps the pipe open that the mounter reads
    (output == "mounted\n").then_some(dir)
}
