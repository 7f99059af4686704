//! The ways in which Postgres is away.

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

use crate::service::Service;
use crate::support::say;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// SIGSTOP: it accepts connections, and never answers.
    Stopped,
    /// SIGKILL of all its processes.
    Killed,
    /// SIGQUIT: what administrators call an immediate shutdown, and what it does to itself when a backend crashes.
    ShutDownImmediately,
    /// It works, and others have all its connections.
    OutOfConnections,
    /// It works, and somebody has locked a table of the service.
    TableLocked,
    /// It works, and has no room for another row.
    DiskFull,
}

/// What keeps Postgres from working, until it is dropped.
#[derive(Default)]
pub(super) struct Harm {
    connections: Vec<PgConnection>,
    filler: Option<PathBuf>,
}

impl Outage {
    /// Whether Postgres itself does its job.
    pub(super) fn postgres_works(self) -> bool {
        self == Self::TableLocked
    }

    /// Why writes are refused meanwhile.
    pub(super) fn reason(self) -> &'static str {
        if self == Self::TableLocked { "OVERLOADED" } else { "STORE_AWAY" }
    }

    /// Whether it keeps a service from writing: the only row of lock always has the room that it had before.
    pub(super) fn stops(self, service: &str) -> bool {
        (self, service) != (Self::DiskFull, "lock")
    }

    pub(super) async fn hurt(self, ground: &Ground, services: &[&Service]) -> Harm {
        let postgres = ground.stack.postgres();
        let mut harm = Harm::default();
        match self {
            Self::Stopped => postgres.pause(),
            Self::Killed => postgres.kill().await,
            Self::ShutDownImmediately => {
                kill_process(Pid::from_raw(postgres.pid().unwrap().cast_signed()).unwrap(), Signal::QUIT).unwrap();
                while postgres.running() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            Self::OutOfConnections => harm.connections = take_all_connections(ground.stack).await,
            Self::TableLocked => {
                for service in services {
                    let mut connection = PgConnection::connect(&postgres.url(service.database())).await.unwrap();
                    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table(service));
                    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
                    harm.connections.push(connection);
                }
            }
            Self::DiskFull => harm.filler = Some(ground.fill()),
        }
        harm
    }

    /// Returns when Postgres works again.
    pub(super) async fn heal(self, ground: &Ground, harm: Harm) {
        if let Some(filler) = harm.filler {
            fs::remove_file(filler).unwrap();
        }
        for connection in harm.connections {
            connection.close().await.unwrap();
        }
        let postgres = ground.stack.postgres();
        postgres.resume();
        postgres.start().await.unwrap();
    }
}

/// What a service has to write to.
fn table(service: &Service) -> &'static str {
    match service.database().split('_').next() {
        Some("user") => "user_account",
        Some("history") => "message",
        _ => "lock_epoch",
    }
}

/// Takes all connections that Postgres gives, also those that services have.
async fn take_all_connections(stack: &Devstack) -> Vec<PgConnection> {
    const OTHERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                          WHERE backend_type = 'client backend' AND application_name LIKE 'tidings-%'";
    let url = stack.postgres().maintenance_url();
    let mut connections = vec![PgConnection::connect(&url).await.unwrap()];
    let all = sqlx::query_scalar("SELECT current_setting('max_connections')::int").fetch_one(&mut connections[0]);
    let all: i32 = all.await.unwrap();
    let all = usize::try_from(all).unwrap();
    while connections.len() < all {
        match PgConnection::connect(&url).await {
            Ok(connection) => connections.push(connection),
            Err(_) => drop(sqlx::query(OTHERS).execute(&mut connections[0]).await.unwrap()),
        }
    }
    connections
}

/// Servers of the test's own.
pub(super) struct Ground {
    pub(super) stack: &'static Devstack,
    /// A small file system in memory in which all databases lie, if there is one.
    disk: Option<PathBuf>,
}

impl Ground {
    /// For an outage; `None` where a file system that can be full can not be made.
    pub(super) async fn of(outage: Outage) -> Option<Self> {
        let stack: &_ = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
        if outage != Outage::DiskFull {
            return Some(Self { stack, disk: None });
        }
        let owner = fs::metadata(stack.dir().join("postgres")).unwrap();
        let Some(disk) = mount(owner.uid(), owner.gid()) else {
            say("a full disk: skipped, because no file system can be mounted here\n");
            return None;
        };
        let mut postgres = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
        let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.display());
        sqlx::raw_sql(AssertSqlSafe(tablespace)).execute(&mut postgres).await.unwrap();
        // Databases lie where their template does.
        sqlx::raw_sql("ALTER DATABASE template1 SET TABLESPACE small").execute(&mut postgres).await.unwrap();
        Some(Self { stack, disk: Some(disk) })
    }

    /// Fills the disk with a file.
    fn fill(&self) -> PathBuf {
        let path = self.disk.as_ref().unwrap().join("filler");
        let mut filler = File::create(&path).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

/// Mounts a small file system that belongs to `uid`; it goes with this process, however that ends.
fn mount(uid: u32, gid: u32) -> Option<PathBuf> {
    const KEEPER: &str = r#"
        trap '' HUP INT QUIT TERM
        mount -t tmpfs -o "size=160m,mode=0700,uid=$2,gid=$3" tmpfs "$1" 2>/dev/null && echo mounted
        read -r _
        umount -l "$1" 2>/dev/null
        rmdir "$1"
    "#;
    let dir = tempfile::Builder::new().prefix("tidings-disk-").tempdir().unwrap().keep();
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(&dir)
        .args([uid.to_string(), gid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
    Box::leak(Box::new(keeper)); // and with it the pipe that it reads
    (said == "mounted\n").then_some(dir)
}
