//! Inspects and signals processes, by `/proc` if present, else by `ps` and `pgrep`.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Sends `signal` to `pid`; does nothing if the process has ended.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Returns true if `pid` runs; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    let exists = pid_of(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    exists && !state(pid).starts_with('Z')
}

/// Returns the direct children of `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children"), &["pgrep", "-P", &pid.to_string()]);
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Returns the program and arguments of `pid`, empty if it has ended.
pub(crate) fn command_line(pid: u32) -> String {
    let text = read(&format!("/proc/{pid}/cmdline"), &["ps", "-o", "args=", "-p", &pid.to_string()]);
    text.replace('\0', " ")
}

fn state(pid: u32) -> String {
    let text = read(&format!("/proc/{pid}/stat"), &["ps", "-o", "stat=", "-p", &pid.to_string()]);
    // The program name precedes it in parentheses and may contain any characters.
    text.rsplit(") ").next().unwrap_or_default().to_owned()
}

fn read(file: &str, command: &[&str]) -> String {
    let bytes = fs::read(file).or_else(|_| {
        let output = Command::new(command[0]).args(&command[1..]).output();
        output.map(|output| output.stdout)
    });
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.cast_signed())
}
