//! The data directory of Postgres: made in one piece, healed when a former run ended badly.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::ROLE;
use crate::place::{self, Place};
use crate::reason::reason;
use crate::{Error, processes};

/// How long a server without a guard may take to shut down before it is killed.
const ORPHAN: Duration = Duration::from_secs(10);

/// Returns the data directory, initialised if it was not.
///
/// It is made under another name and then renamed: what lies under its own name is whole.
pub(super) async fn prepare(place: Arc<Place>, initdb: &Path, durable: bool) -> Result<PathBuf, Error> {
    let data = place.data("postgres");
    place::remove(&place.data("postgres.new"))?;
    if data.join("PG_VERSION").exists() && data.join("global/pg_control").exists() {
        return Ok(data);
    }
    place::remove(&data)?;
    let new = place.make("postgres.new")?;
    if let Err(error) = initialise(&place, initdb, &new, durable).await {
        place::remove(&new)?; // on a full disk others need the room
        return Err(error);
    }
    fs::rename(&new, &data).map_err(Error::system("rename", &new))?;
    Ok(data)
}

async fn initialise(place: &Place, initdb: &Path, data: &Path, durable: bool) -> Result<(), Error> {
    let mut command = place.guarded(initdb, "TERM")?;
    command.arg("-D").arg(data).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]);
    if !durable {
        command.arg("--no-sync");
    }
    let child = command.stderr(Stdio::piped()).spawn().map_err(Error::system("run", initdb))?;
    let output = spawn_blocking(move || finish(child)).await;
    let output = output.unwrap_or_else(|lost| Err(lost.into()));
    let output = output.map_err(Error::system("run", initdb))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = reason(&String::from_utf8_lossy(&output.stderr), data);
    Err(Error::Ended { server: "initdb", reason: reason.unwrap_or_else(|| output.status.to_string()) })
}

/// Waits for the end of `child` without closing its stdin first, which would be its end.
fn finish(mut child: Child) -> std::io::Result<std::process::Output> {
    let lifeline = child.stdin.take();
    let output = child.wait_with_output();
    drop(lifeline);
    output
}

/// The settings of every start; nothing is written to `postgresql.conf`, so that a kept cluster takes new ones.
pub(super) fn arguments(data: &Path, port: u16, durable: bool) -> Vec<OsString> {
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        "unix_socket_directories=".into(),
        "max_connections=400".into(),
        // Full page writes stay on: a killed server may leave half a page behind, whatever the disk does.
        format!("fsync={}", if durable { "on" } else { "off" }),
        "timezone=UTC".into(),
        "log_timezone=UTC".into(),
        "log_checkpoints=off".into(),
    ];
    let mut arguments = vec!["-D".into(), data.into()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting.into()]));
    arguments
}

/// Makes way for a start: ends a server of this directory that lost its guard, and removes a pid file whose number
/// belongs to another process by now.
///
/// The caller owns the directory and has no server: whoever else runs here is nobody's. The file of a dead server is
/// left to Postgres, which takes it as the key to see that no backend has outlived its postmaster.
pub(super) async fn make_way(data: &Path) -> Result<(), Error> {
    let file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    match pid {
        Some(pid) if serves(pid, data) => {
            end(pid).await;
            Ok(())
        }
        Some(pid) if !processes::alive(pid) => Ok(()),
        _ => fs::remove_file(&file).map_err(Error::system("remove", &file)),
    }
}

async fn end(pid: u32) {
    let deadline = Instant::now() + ORPHAN;
    processes::send(pid, Signal::INT);
    while processes::alive(pid) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    processes::send(pid, Signal::KILL);
}

/// Reports whether `pid` is a postmaster of this directory, and not another process that got its number.
fn serves(pid: u32, data: &Path) -> bool {
    let line = processes::command_line(pid);
    processes::alive(pid) && line.contains("postgres") && line.contains(&*data.to_string_lossy())
}
