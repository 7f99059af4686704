//! What the operating system knows of this process, under the names that every Prometheus client has for it.
//!
//! From `/proc`, so on Linux only; elsewhere these numbers are not there. A crate for this would bring thirty more.

use std::fs;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Ticks of `/proc` in a second, on every Linux.
const TICKS: u64 = 100;

/// What there is to know; what can not be read is left out.
#[derive(Debug)]
struct Process {
    cpu_seconds: Option<u64>,
    start_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    threads: Option<u64>,
    files: Option<u64>,
    files_max: Option<u64>,
}

impl Process {
    fn look() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let (limits, system) = (read("/proc/self/limits"), read("/proc/stat"));
        // After the name, which may hold anything, the third field of the file.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = number(&system, "btime");
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, kernel)| (user + kernel) / TICKS),
            start_seconds: boot.zip(ticks(22)).map(|(boot, start)| boot + start / TICKS),
            memory_bytes: number(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: number(&status, "Threads:"),
            files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            files_max: number(&limits, "Max open files"),
        }
    }
}

/// The number that follows a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Measures the process.
pub(crate) fn measure() {
    let process = Process::look();
    if let Some(seconds) = process.cpu_seconds {
        counter!("process_cpu_seconds_total").absolute(seconds);
    }
    let gauges = [
        ("process_start_time_seconds", process.start_seconds),
        ("process_resident_memory_bytes", process.memory_bytes),
        ("process_threads", process.threads),
        ("process_open_fds", process.files),
        ("process_max_fds", process.files_max),
    ];
    for (name, value) in gauges {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        if let Some(value) = value {
            gauge!(name).set(value as f64);
        }
    }
}

pub(crate) fn describe() {
    describe_counter!("process_cpu_seconds_total", Unit::Seconds, "CPU time of the process, in whole seconds.");
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "When the process began, in seconds since 1970.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory of the process that is in RAM.");
    describe_gauge!("process_threads", "Threads of the process.");
    describe_gauge!("process_open_fds", "Files and sockets that are open.");
    describe_gauge!("process_max_fds", "The most that may be open.");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found() {
        let process = Process::look();

        assert!(process.cpu_seconds.is_some_and(|seconds| seconds < 3600), "{process:?}");
        assert!(process.start_seconds.is_some_and(|start| start > 1_600_000_000), "{process:?}");
        assert!(process.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(
            process.threads > Some(0) && process.files > Some(2) && process.files_max > process.files,
            "{process:?}"
        );
    }
}
