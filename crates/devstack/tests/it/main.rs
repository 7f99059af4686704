//! The stack as its users see it, with real servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod exec;
mod owners;
mod places;
mod proxy;
mod servers;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::Commands;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidings_devstack::{Devstack, Dir, Options};

/// A stack in `dir` that does not wait for the disk.
fn kept(dir: &Path) -> Options {
    Options { durable: false, ..Options::kept(dir) }
}

/// Starts a stack of a test's own.
async fn start(dir: Dir) -> Devstack {
    let options = Options { dir, ..Options::temporary() };
    Devstack::start(options).await.unwrap()
}

/// Asks Postgres for one text.
async fn ask(stack: &Devstack, statement: &str) -> sqlx::Result<String> {
    let mut connection = PgConnection::connect(&stack.postgres().maintenance_url()).await?;
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await
}

/// Lets Postgres do something.
async fn tell(stack: &Devstack, statement: &str) {
    let mut connection = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// Connects to Redis; gives up on an answer after 300 ms.
fn redis(stack: &Devstack) -> redis::RedisResult<redis::Connection> {
    let patience = Duration::from_millis(300);
    let connection = redis::Client::open(stack.redis().url())?.get_connection_with_timeout(patience)?;
    connection.set_read_timeout(Some(patience))?;
    Ok(connection)
}

fn ping(stack: &Devstack) -> redis::RedisResult<String> {
    redis(stack)?.ping()
}

/// Waits up to 20 s until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reports whether a process runs; one that only waits to be reaped does not.
fn alive(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    !matches!(output.stdout.first(), None | Some(b'Z'))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test proves nothing here.
#[expect(clippy::print_stderr, reason = "a test that is left out should say so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
