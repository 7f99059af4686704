//! Tests of the binary: without services, and against in-memory services that can misbehave.

#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod bench;
mod call;
mod channel;
mod fake;
mod lock;
mod migrate;
mod replay;
mod token;
mod user;

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Exit code and output of a finished run of the binary.
#[derive(Debug)]
struct CommandResult {
    code: i32,
    out: String,
    err: String,
}

/// Creates a command for the binary, without the addresses of services in its environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments);
    for service in ["USER", "HISTORY", "LOCK", "BROADCAST"] {
        command.env_remove(format!("TIDINGS_{service}_ADDR"));
    }
    command
}

/// Runs the binary to its end.
fn tidings(arguments: &[&str]) -> CommandResult {
    ended(&command(arguments).output().unwrap())
}

fn ended(output: &Output) -> CommandResult {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    CommandResult { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A running instance of the binary, killed at the end of the test.
#[derive(Debug)]
struct RunningCommand(Child);

/// Starts the binary.
fn start(arguments: &[&str]) -> RunningCommand {
    let pipes = command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    RunningCommand(pipes.unwrap())
}

impl RunningCommand {
    /// Sends it a signal.
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its exit.
    fn end(mut self) -> CommandResult {
        let mut run = CommandResult { code: 0, out: String::new(), err: String::new() };
        self.0.stdout.take().unwrap().read_to_string(&mut run.out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut run.err).unwrap();
        run.code = self.0.wait().unwrap().code().unwrap();
        run
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition holds. Panics with `what` after a minute.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    /// Longer than any condition takes on the slowest machine.
    const TIMEOUT: Duration = Duration::from_mins(1);
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn help_lists_every_verb() {
    let run = tidings(&["--help"]);

    assert_eq!(run.code, 0);
    for verb in ["migrate", "call", "lock", "channel", "replay", "bench"] {
        assert!(run.out.contains(&format!("\n  {verb} ")), "{}", run.out);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["call"],
        &["call", "--list", "--describe", "GetUser"],
        &["lock"],
        &["lock", "acquire"],
        &["lock", "acquire", "a", "--ttl", "0s"],
        &["lock", "release", "a"],
        &["channel", "pub"],
        &["channel", "pub", "a", "b", "--attribute", "c"],
        &["channel", "sub"],
        &["channel", "sub", "a", "--last", "0"],
        &["channel", "sub", "a", "--from", "nowhere"],
        &["channel", "sub", "a", "--from", "e:1", "--last", "1"],
        &["channel", "sub", "a", "b", "--from", "e:1"],
        &["replay"],
        &["bench"],
        &["bench", "frobnicate"],
        &["bench", "get-user", "--rate", "0"],
        &["bench", "get-user", "--list"],
        &["bench", "get-user", "--p99", "fast"],
    ] {
        assert_eq!(tidings(arguments).code, 2, "{arguments:?}");
    }
}

/// A result that cannot be written is an error, unless the reader closed the pipe.
#[test]
fn an_unwritable_result_is_an_error_unless_the_pipe_was_closed() {
    let run = |stdout: Stdio| ended(&command(&["call", "--list"]).stdout(stdout).output().unwrap());

    let full = run(File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.code, 3, "{full:?}");
    assert!(full.err.starts_with("tidings: cannot write the result: "), "{full:?}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = run(writer.into());
    assert_eq!((closed.code, closed.err.as_str()), (0, ""));
}
