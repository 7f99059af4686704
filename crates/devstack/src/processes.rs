//! Looks at processes and signals them; `/proc` where there is one, `ps` and `pgrep` elsewhere.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Sends `signal` to `pid`; a process that is gone by now needs none.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = handle(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Reports whether `pid` runs; one that is dead and only not reaped does not.
pub(crate) fn alive(pid: u32) -> bool {
    let exists = handle(pid).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    exists && !state(pid).starts_with('Z')
}

/// Lists the direct children of `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children"), &["pgrep", "-P", &pid.to_string()]);
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Returns the program and arguments of `pid`, empty if it is gone.
pub(crate) fn command_line(pid: u32) -> String {
    let text = read(&format!("/proc/{pid}/cmdline"), &["ps", "-o", "args=", "-p", &pid.to_string()]);
    text.replace('\0', " ")
}

fn state(pid: u32) -> String {
    let text = read(&format!("/proc/{pid}/stat"), &["ps", "-o", "stat=", "-p", &pid.to_string()]);
    // The name of the program comes first, in parentheses, and may hold anything.
    text.rsplit(") ").next().unwrap_or_default().to_owned()
}

fn read(file: &str, command: &[&str]) -> String {
    let bytes = fs::read(file).or_else(|_| {
        let output = Command::new(command[0]).args(&command[1..]).output();
        output.map(|output| output.stdout)
    });
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn handle(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.cast_signed())
}
