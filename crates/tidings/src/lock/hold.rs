//! Runs a command while a lock is held.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tidings_client::{LockGuard, Lost};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::error::Error;
use crate::{exit, out};

/// Time that the command has to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// The interval at which the end of the process group is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The number that a shell adds to a signal number in an exit code.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Runs a command under a lock, then releases the lock; returns the command's exit code.
pub(super) async fn run(guard: LockGuard, name: String, program: &OsStr, arguments: &[OsString]) -> Result<u8, Error> {
    let command = program.to_string_lossy().into_owned();
    let ended = match ProcessGroup::start(&guard, program, arguments, &command) {
        Ok(mut group) => group.run(&guard).await,
        Err(error) => Err(error),
    };
    let outcome = match ended {
        Ok(CommandEnd::Exited(status)) => Ok(exit_code(status)),
        Ok(CommandEnd::Lost(lost)) => return Err(Error::Lost { name, command, lost }),
        Err(error) => Err(error),
    };
    if let Err(error) = guard.release().await {
        out::note(format_args!("tidings: cannot release {name}, it stays held until its lease expires: {error}"));
    }
    outcome
}

/// Returns the command's exit code, or that of a shell if a signal ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_EXIT_BASE + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::SERVICE)
}

/// The end of the command.
enum CommandEnd {
    Exited(ExitStatus),
    Lost(Lost),
}

/// The process group of the command: all its processes can be ended when the lock is lost.
struct ProcessGroup {
    child: Child,
    id: Pid,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl ProcessGroup {
    fn start(guard: &LockGuard, program: &OsStr, arguments: &[OsString], name: &str) -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|cause| Error::System { action: "listen for signals", cause });
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let hangup = listen(SignalKind::hangup())?;
        // A read from the terminal would stop a process outside the foreground group.
        let input = if io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() };
        let started = Command::new(program)
            .args(arguments)
            .env("TIDINGS_LOCK_TOKEN", guard.token().to_string())
            .stdin(input)
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = started.map_err(|cause| Error::Command { command: name.to_owned(), cause })?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.ok_or(Error::System { action: "find the command", cause: io::ErrorKind::NotFound.into() })?;
        Ok(Self { child, id, interrupt, terminate, hangup })
    }

    /// Waits until the command exits; ends it if the lock is lost.
    async fn run(&mut self, guard: &LockGuard) -> Result<CommandEnd, Error> {
        loop {
            tokio::select! {
                biased; // if both are ready, the command may have run without the lock
                lost = guard.lost() => {
                    self.end().await;
                    return Ok(CommandEnd::Lost(lost));
                }
                ended = self.child.wait() => {
                    let waiting = |cause| Error::System { action: "wait for the command", cause };
                    return ended.map(CommandEnd::Exited).map_err(waiting);
                }
                _ = self.interrupt.recv() => self.signal(Signal::INT),
                _ = self.terminate.recv() => self.signal(Signal::TERM),
                _ = self.hangup.recv() => self.signal(Signal::HUP),
            }
        }
    }

    /// Ends the group with SIGTERM, and with SIGKILL after the grace.
    async fn end(&mut self) {
        let begin = Instant::now();
        self.signal(Signal::TERM);
        while begin.elapsed() < GRACE {
            let _ = self.child.try_wait(); // reaps the child: a zombie would count as running
            if test_kill_process_group(self.id).is_err() {
                return;
            }
            sleep(POLL_INTERVAL).await;
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.id, signal); // fails if the group has ended
    }
}
