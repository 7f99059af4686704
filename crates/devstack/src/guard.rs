//! Runs a program that never outlives its owner; see `guard.sh`.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::{ServerAccount, shell};

/// Shell script that starts a guard in the background and becomes the program.
const SCRIPT: &str = include_str!("guard.sh");

/// Prepares `program` in its own process group, so that Ctrl-C reaches its owner only.
///
/// The spawned child is the program itself. When its stdin is closed, the guard sends it `signals`
/// one after the other, then `KILL`. The guard keeps `lifeline` open until the program has ended.
pub(crate) fn guarded(program: &Path, signals: &str, account: Option<&ServerAccount>, lifeline: OwnedFd) -> Command {
    let mut command = shell(SCRIPT, account);
    command
        .args(["tidings-guard", signals])
        .arg(program)
        .env("LC_ALL", "C") // `reason` searches the log for English messages
        .stdin(Stdio::piped())
        .stdout(lifeline);
    command
}
