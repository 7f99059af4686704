//! The binary as its users run it: against nothing, and against services in memory that can misbehave.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod bench;
mod call;
mod channel;
mod fake;
mod lock;
mod replay;
mod token;
mod user;

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A run of the binary that has ended.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

/// The binary, with an environment that says nothing about services.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments);
    for service in ["USER", "HISTORY", "LOCK", "BROADCAST"] {
        command.env_remove(format!("TIDINGS_{service}_ADDR"));
    }
    command
}

/// Runs the binary to its end.
fn tidings(arguments: &[&str]) -> Run {
    ended(&command(arguments).output().unwrap())
}

fn ended(output: &Output) -> Run {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Run { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The binary under way, ended with the test.
#[derive(Debug)]
struct Running(Child);

/// Starts the binary.
fn start(arguments: &[&str]) -> Running {
    let pipes = command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running(pipes.unwrap())
}

impl Running {
    /// Sends it a signal.
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end.
    fn end(mut self) -> Run {
        let mut run = Run { code: 0, out: String::new(), err: String::new() };
        self.0.stdout.take().unwrap().read_to_string(&mut run.out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut run.err).unwrap();
        run.code = self.0.wait().unwrap().code().unwrap();
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    /// Longer than anything takes on the slowest machine.
    const PATIENCE: Duration = Duration::from_mins(1);
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn help_names_every_verb() {
    let run = tidings(&["--help"]);

    assert_eq!(run.code, 0);
    for verb in ["call", "lock", "channel", "replay", "bench"] {
        assert!(run.out.contains(&format!("\n  {verb} ")), "{}", run.out);
    }
}

#[test]
fn wrong_usage_ends_with_2() {
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

#[test]
fn a_result_that_can_not_be_written_is_an_error_unless_the_reader_has_gone() {
    let run = |stdout: Stdio| ended(&command(&["call", "--list"]).stdout(stdout).output().unwrap());

    let full = run(File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.code, 3, "{full:?}");
    assert!(full.err.starts_with("tidings: can not write the result: "), "{full:?}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = run(writer.into());
    assert_eq!((gone.code, gone.err.as_str()), (0, ""));
}
