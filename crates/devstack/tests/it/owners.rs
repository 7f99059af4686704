//! Owners of a directory: killed owners, second owners and orphaned servers.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use tidings_devstack::{Devstack, Error};

use super::{alive, eventually, execute, kept, query_text};

/// A process that owns a temporary stack.
struct Owner {
    process: Child,
    /// Process id of its command, which may outlive the owner.
    command: String,
    /// Parent of the stack's temporary directory.
    dir: tempfile::TempDir,
}

impl Owner {
    fn start() -> Self {
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60", file.display());
        let process = Command::new(env!("CARGO_BIN_EXE_tidings-devstack"))
            .args(["exec", "--", "sh", "-c", &script])
            .env("TMPDIR", dir.path())
            .spawn()
            .unwrap();
        eventually("the command runs", || file.exists());
        let command = fs::read_to_string(file).unwrap().trim().to_owned();
        Self { process, command, dir }
    }

    /// Returns the process ids of Postgres, Redis and the remover of the directory.
    fn servers(&self) -> Vec<u32> {
        let output = Command::new("pgrep").args(["-P", &self.process.id().to_string()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| *line != self.command).map(|line| line.parse().unwrap()).collect()
    }
}

/// Counts the temporary directories of stacks in `dir`.
fn temporaries(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tidings-")).count()
}

#[test]
fn servers_and_directory_do_not_outlive_a_killed_owner() {
    let mut owner = Owner::start();
    let servers = owner.servers();
    assert_eq!(servers.len(), 3, "Postgres, Redis and the remover");
    assert_eq!(temporaries(owner.dir.path()), 1);

    owner.process.kill().unwrap();
    owner.process.wait().unwrap();

    eventually("the servers end", || !servers.iter().any(|&pid| alive(pid)));
    assert_eq!(temporaries(owner.dir.path()), 0);
    Command::new("kill").arg(owner.command).status().unwrap();
}

#[tokio::test]
async fn a_second_owner_gets_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Devstack::start(kept(dir.path())).await.unwrap();

    let refused = Devstack::start(kept(dir.path())).await.unwrap_err();

    let pid = std::process::id();
    assert!(refused.to_string().contains(&format!("is in use by another tidings (pid {pid})")), "{refused}");
    assert!(matches!(refused, Error::InUse { .. }));
}

#[tokio::test]
async fn the_next_owner_finds_the_data_of_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let first = Devstack::start(kept(dir.path())).await.unwrap();
    execute(&first, "CREATE TABLE kept AS SELECT 'committed' AS word").await;
    drop(first);

    let second = Devstack::start(kept(dir.path())).await.unwrap();

    assert_eq!(query_text(&second, "SELECT word FROM kept").await.unwrap(), "committed");
}

/// A server whose guard was killed keeps running; the next owner of the directory stops it.
#[tokio::test]
async fn an_orphaned_server_is_ended_by_the_next_owner() {
    let dir = tempfile::tempdir().unwrap();
    drop(Devstack::start(kept(dir.path())).await.unwrap());
    let data = dir.path().join("postgres").canonicalize().unwrap();
    let user = fs::metadata(&data).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let orphan = Command::new("postgres")
        .arg("-D")
        .arg(&data)
        .args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
        .args(["-c", "log_min_messages=panic"])
        .uid(user.uid())
        .gid(user.gid())
        .current_dir("/")
        .spawn();
    let Ok(mut orphan) = orphan else { return super::skipped("postgres is not in the PATH") };
    eventually("the orphan runs", || data.join("postmaster.pid").exists());

    let stack = Devstack::start(kept(dir.path())).await.unwrap();

    assert_eq!(query_text(&stack, "SELECT 'mine'").await.unwrap(), "mine");
    assert!(orphan.try_wait().unwrap().is_some());
}
