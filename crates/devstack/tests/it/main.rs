//! The stack with real servers.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod data_dirs;
mod exec;
mod owners;
mod proxy;
mod servers;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::Commands;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidings_devstack::{Devstack, Dir, Options};

/// Options of a kept stack in `dir` without `fsync`.
fn kept(dir: &Path) -> Options {
    Options { durable: false, ..Options::kept(dir) }
}

/// Starts a stack for one test.
async fn start(dir: Dir) -> Devstack {
    let options = Options { dir, ..Options::temporary() };
    Devstack::start(options).await.unwrap()
}

/// Runs a query that returns one text.
async fn query_text(stack: &Devstack, statement: &str) -> sqlx::Result<String> {
    let mut connection = PgConnection::connect(&stack.postgres().maintenance_url()).await?;
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await
}

/// Executes a statement.
async fn execute(stack: &Devstack, statement: &str) {
    let mut connection = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// Connects to Redis, with a timeout of 300 ms for each reply.
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
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns true if a process runs; a zombie does not.
fn alive(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    !matches!(output.stdout.first(), None | Some(b'Z'))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prints the reason for which a test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test should be visible")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
