//! Runs a program so that it never outlives its owner: see `guard.sh`.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::Account;

/// The shell script that becomes the program and leaves a watcher beside it.
const SCRIPT: &str = include_str!("guard.sh");

/// Prepares `program` as a process group of its own, so that Ctrl-C in the terminal reaches its owner only.
///
/// The child spawned from this is the program itself. When its stdin is closed it is sent `signals` one after the
/// other, then `KILL`. `hold` stays open until it is gone.
pub(crate) fn guarded(program: &Path, signals: &str, account: Option<&Account>, hold: OwnedFd) -> Command {
    let mut command = shell(SCRIPT, account);
    command
        .args(["tidings-guard", signals])
        .arg(program)
        .env("LC_ALL", "C") // the log is read for the cause of a failure
        .stdin(Stdio::piped())
        .stdout(hold);
    command
}

/// Prepares a shell `script` as `account`, out of the reach of the terminal and with none of our streams.
pub(crate) fn shell(script: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(account) = account {
        account.take_on(&mut command);
    }
    command
}
