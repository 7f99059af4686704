//! The data directory of Postgres: atomic creation, and repair after a crash.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::ROLE;
use crate::data_dir::{self, DataDir};
use crate::error::Error;
use crate::options::Dir;
use crate::processes;
use crate::reason::reason;

/// Longest shutdown of a server that has lost its guard, before it is killed.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(10);

/// Temporary stacks of this process whose cluster was created.
static TEMPORARY: AtomicUsize = AtomicUsize::new(0);

/// The template of temporary stacks, all but the first of this process: a copy costs a fifth of the
/// CPU time of `initdb`.
static TEMPLATE: OnceCell<ClusterTemplate> = OnceCell::const_new();

/// A cluster that was initialised and never started. Its directory is removed when this process
/// ends.
#[derive(Debug)]
struct ClusterTemplate {
    /// The `initdb` that created it: another version of Postgres cannot use it.
    initdb: PathBuf,
    data: PathBuf,
    _data_dir: Arc<DataDir>,
}

/// Returns the data directory, and initialises it first if necessary.
///
/// It is created under another name and then renamed, so that it is never incomplete.
pub(super) async fn prepare(data_dir: Arc<DataDir>, initdb: &Path, durable: bool) -> Result<PathBuf, Error> {
    let data = data_dir.data("postgres");
    data_dir::remove(&data_dir.data("postgres.new"))?;
    if data.join("PG_VERSION").exists() && data.join("global/pg_control").exists() {
        return Ok(data);
    }
    data_dir::remove(&data)?;
    let new = data_dir.create_data("postgres.new")?;
    if let Err(error) = create(&data_dir, initdb, &new, durable).await {
        data_dir::remove(&new)?; // frees the space on a full disk
        return Err(error);
    }
    fs::rename(&new, &data).map_err(Error::system("rename", &new))?;
    Ok(data)
}

/// Fills an empty data directory.
async fn create(data_dir: &DataDir, initdb: &Path, data: &Path, durable: bool) -> Result<(), Error> {
    if data_dir.is_temporary() && TEMPORARY.fetch_add(1, Ordering::Relaxed) > 0 {
        let template = TEMPLATE.get_or_try_init(|| ClusterTemplate::create(initdb)).await?;
        if template.initdb == initdb {
            return template.copy_to(data_dir, data).await;
        }
    }
    initialise(data_dir, initdb, data, durable).await
}

impl ClusterTemplate {
    async fn create(initdb: &Path) -> Result<Self, Error> {
        let data_dir = Arc::new(DataDir::acquire(&Dir::Temporary).await?);
        let data = data_dir.create_data("postgres")?;
        initialise(&data_dir, initdb, &data, false).await?;
        Ok(Self { initdb: initdb.to_owned(), data, _data_dir: data_dir })
    }

    async fn copy_to(&self, data_dir: &DataDir, data: &Path) -> Result<(), Error> {
        let mut command = data_dir.guarded(Path::new("cp"), "TERM")?;
        command.arg("-a").arg(self.data.join(".")).arg(data);
        run(command, "cp", data).await
    }
}

async fn initialise(data_dir: &DataDir, initdb: &Path, data: &Path, durable: bool) -> Result<(), Error> {
    let mut command = data_dir.guarded(initdb, "TERM")?;
    command.arg("-D").arg(data).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]);
    if !durable {
        command.arg("--no-sync");
    }
    run(command, "initdb", data).await
}

/// Runs a program that fills `data`.
async fn run(mut command: Command, program: &'static str, data: &Path) -> Result<(), Error> {
    let child = command.stderr(Stdio::piped()).spawn().map_err(Error::system("run", Path::new(program)))?;
    let output = spawn_blocking(move || finish(child)).await;
    let output = output.unwrap_or_else(|lost| Err(lost.into()));
    let output = output.map_err(Error::system("run", Path::new(program)))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = reason(&String::from_utf8_lossy(&output.stderr), data);
    Err(Error::StartFailed { server: program, reason: reason.unwrap_or_else(|| output.status.to_string()) })
}

/// Waits for the end of `child`. Keeps its stdin open, because closing it makes the guard stop it.
fn finish(mut child: Child) -> std::io::Result<std::process::Output> {
    let lifeline = child.stdin.take();
    let output = child.wait_with_output();
    drop(lifeline);
    output
}

/// Returns the arguments of a start. `postgresql.conf` stays as it is, so that a kept cluster gets
/// new settings.
pub(super) fn arguments(data: &Path, port: u16, durable: bool) -> Vec<OsString> {
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        "unix_socket_directories=".into(),
        "max_connections=400".into(),
        // `full_page_writes` stays on: a killed server may leave a torn page, also without `fsync`.
        format!("fsync={}", if durable { "on" } else { "off" }),
        "timezone=UTC".into(),
        "log_timezone=UTC".into(),
        "log_checkpoints=off".into(),
    ];
    let mut arguments = vec!["-D".into(), data.into()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting.into()]));
    arguments
}

/// Prepares a start: stops a server of this directory that has lost its guard, and removes a pid
/// file whose pid belongs to an unrelated process.
///
/// The caller owns the directory and has no server, so any server in it is an orphan. The pid file
/// of a dead server stays: Postgres uses it to check that no backend outlived its postmaster.
pub(super) async fn clear_stale_postmaster(data: &Path) -> Result<(), Error> {
    let file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    match pid {
        Some(pid) if is_postmaster(pid, data) => {
            stop_orphan(pid).await;
            Ok(())
        }
        Some(pid) if !processes::alive(pid) => Ok(()),
        _ => fs::remove_file(&file).map_err(Error::system("remove", &file)),
    }
}

async fn stop_orphan(pid: u32) {
    let deadline = Instant::now() + ORPHAN_TIMEOUT;
    processes::send(pid, Signal::INT);
    while processes::alive(pid) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    processes::send(pid, Signal::KILL);
}

/// Returns true if `pid` is a postmaster of this directory, and not an unrelated process.
fn is_postmaster(pid: u32, data: &Path) -> bool {
    let line = processes::command_line(pid);
    processes::alive(pid) && line.contains("postgres") && line.contains(&*data.to_string_lossy())
}
