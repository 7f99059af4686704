//! A server process with its guard: start, pause, kill and stop.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::Signal;

use crate::data_dir::DataDir;
use crate::error::Error;
use crate::processes;
use crate::reason::reason;

/// Longest time from start to ready, including recovery after a crash.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a stop; the guard kills after 10 or 20 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Program, arguments and stop signals of a server.
#[derive(Debug)]
pub(crate) struct ServerCommand {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Signals that stop the server, in this order, as names for `kill -s`.
    pub(crate) signals: &'static str,
}

/// A server that can be restarted.
#[derive(Debug)]
pub(crate) struct ChildServer {
    command: ServerCommand,
    data_dir: Arc<DataDir>,
    state: Mutex<RunState>,
}

#[derive(Debug, Default)]
struct RunState {
    /// The child, whose stdin the guard reads: dropping it makes the guard stop the server.
    child: Option<Child>,
    /// Exit status of the last child.
    status: Option<ExitStatus>,
    /// Offset in the log at which the current run starts, in bytes.
    log_start: u64,
}

impl ChildServer {
    pub(crate) fn new(command: ServerCommand, data_dir: Arc<DataDir>) -> Self {
        let state = Mutex::default();
        Self { command, data_dir, state }
    }

    /// Starts the server if it does not run, and waits until `is_ready` returns true.
    pub(crate) async fn start<F>(&self, is_ready: impl Fn() -> F) -> Result<(), Error>
    where
        F: Future<Output = bool>,
    {
        self.launch()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready().await {
            if !self.running() {
                return Err(self.ended_error());
            }
            if Instant::now() > deadline {
                return Err(self.not_ready_error());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    pub(crate) fn running(&self) -> bool {
        self.pid().is_some()
    }

    /// Returns the process id of the server, `None` if it does not run.
    pub(crate) fn pid(&self) -> Option<u32> {
        let mut state = self.lock_state();
        state.child.as_mut().map(|child| child.id())
    }

    /// Kills the server and its children, and waits until they have ended.
    pub(crate) async fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        // Suspended first, so that it cannot fork after its children are listed.
        processes::send(pid, Signal::STOP);
        let tree = with_children(pid);
        for &member in &tree {
            processes::send(member, Signal::KILL);
        }
        while self.running() || tree.iter().any(|&member| processes::alive(member)) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Suspends the server and its children.
    pub(crate) fn pause(&self) {
        if let Some(pid) = self.pid() {
            processes::send(pid, Signal::STOP);
            for member in with_children(pid) {
                processes::send(member, Signal::STOP);
            }
        }
    }

    /// Resumes the server and its children.
    pub(crate) fn resume(&self) {
        if let Some(pid) = self.pid() {
            for member in with_children(pid) {
                processes::send(member, Signal::CONT);
            }
        }
    }

    /// Stops the server, and waits; the guard kills it if it ignores the signals.
    pub(crate) async fn stop(&self) {
        let deadline = self.request_stop();
        while self.running() && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Closes the pipe to the guard, which stops the server. Returns the deadline of the wait.
    pub(crate) fn request_stop(&self) -> Instant {
        if let Some(child) = &mut self.lock_state().child {
            child.stdin = None;
        }
        Instant::now() + STOP_TIMEOUT
    }

    fn launch(&self) -> Result<(), Error> {
        let mut state = self.lock_state();
        if state.child.is_some() {
            return Ok(());
        }
        let path = self.data_dir.log(self.command.name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(Error::system("open", &path))?;
        state.log_start = log.metadata().map_or(0, |file| file.len());
        let mut command = self.data_dir.guarded(&self.command.program, self.command.signals)?;
        command.args(&self.command.arguments).stderr(log);
        let child = command.spawn().map_err(Error::system("start", &self.command.program))?;
        state.child = Some(child);
        Ok(())
    }

    /// Locks the state, and reaps the child if it has ended.
    fn lock_state(&self) -> MutexGuard<'_, RunState> {
        let mut state = self.state.lock();
        if let Some(child) = &mut state.child
            && let Ok(Some(status)) = child.try_wait()
        {
            state.child = None;
            state.status = Some(status);
        }
        state
    }

    fn ended_error(&self) -> Error {
        let state = self.lock_state();
        let log = fs::read(self.data_dir.log(self.command.name)).unwrap_or_default();
        let begin = usize::try_from(state.log_start).unwrap_or(0).min(log.len());
        let status = state.status.map_or_else(String::new, |status| status.to_string());
        let reason = reason(&String::from_utf8_lossy(&log[begin..]), self.data_dir.dir());
        Error::StartFailed { server: self.command.name, reason: reason.unwrap_or(status) }
    }

    fn not_ready_error(&self) -> Error {
        Error::NotReady {
            server: self.command.name,
            seconds: START_TIMEOUT.as_secs(),
            log: self.data_dir.log(self.command.name),
        }
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        let deadline = self.request_stop();
        while self.running() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Returns `pid` and its direct children.
fn with_children(pid: u32) -> Vec<u32> {
    let mut tree = vec![pid];
    tree.extend(processes::children(pid));
    tree
}
