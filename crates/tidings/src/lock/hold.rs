//! Runs a command for as long as a lock is held.

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

use super::Error;
use crate::{error, out};

/// How long the command has to end in order after its lock was lost.
const GRACE: Duration = Duration::from_secs(5);
/// How often we look whether all of it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;

/// Runs a command under a lock, then releases it. Returns the command's exit code.
pub(super) async fn run(guard: LockGuard, name: String, program: &OsStr, arguments: &[OsString]) -> Result<u8, Error> {
    let command = program.to_string_lossy().into_owned();
    let ended = match Group::start(&guard, program, arguments, &command) {
        Ok(mut group) => group.run(&guard).await,
        Err(error) => Err(error),
    };
    let outcome = match ended {
        Ok(Ended::ByItself(status)) => Ok(exit_code(status)),
        Ok(Ended::Lost(lost)) => return Err(Error::Lost { name, command, lost }),
        Err(error) => Err(error),
    };
    if let Err(error) = guard.release().await {
        out::note(format_args!("tidings: {name} is free when its lease has run out, and not before: {error}"));
    }
    outcome
}

/// The command's own exit code; if a signal ended it, what a shell says.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(error::SERVICE)
}

/// How the command came to its end.
enum Ended {
    ByItself(ExitStatus),
    Lost(Lost),
}

/// The command and everything that it starts: a process group, so that all of it can be ended when the lock is lost.
struct Group {
    child: Child,
    id: Pid,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Group {
    fn start(guard: &LockGuard, program: &OsStr, arguments: &[OsString], name: &str) -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|cause| Error::System { action: "listen for signals", cause });
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let hangup = listen(SignalKind::hangup())?;
        // A process outside of the group of the terminal is stopped when it reads from it.
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

    /// Waits until the command has ended by itself, or was ended because the lock is lost.
    async fn run(&mut self, guard: &LockGuard) -> Result<Ended, Error> {
        loop {
            tokio::select! {
                biased; // what has ended when the lock was lost may have ended after that
                lost = guard.lost() => {
                    self.end().await;
                    return Ok(Ended::Lost(lost));
                }
                ended = self.child.wait() => {
                    let waiting = |cause| Error::System { action: "wait for the command", cause };
                    return ended.map(Ended::ByItself).map_err(waiting);
                }
                _ = self.interrupt.recv() => self.signal(Signal::INT),
                _ = self.terminate.recv() => self.signal(Signal::TERM),
                _ = self.hangup.recv() => self.signal(Signal::HUP),
            }
        }
    }

    /// Ends all of it: in order if it can be done within the grace, else at once.
    async fn end(&mut self) {
        let begin = Instant::now();
        self.signal(Signal::TERM);
        while begin.elapsed() < GRACE {
            let _ = self.child.try_wait(); // until then its process is there, though it has ended
            if test_kill_process_group(self.id).is_err() {
                return;
            }
            sleep(LOOK).await;
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.id, signal); // nobody is left: that is well
    }
}
