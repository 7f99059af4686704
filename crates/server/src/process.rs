//! Metrics of this process from the operating system, under the names that all Prometheus clients
//! use.
//!
//! Read from `/proc`, so on Linux only; elsewhere these metrics are absent. A crate for this would
//! bring thirty more dependencies.

use std::fs;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Clock ticks per second in `/proc`, on every Linux.
const TICKS: u64 = 100;

/// A sample of the process; a value that cannot be read is absent.
#[derive(Debug)]
struct ProcessStats {
    cpu_seconds: Option<u64>,
    start_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    threads: Option<u64>,
    files: Option<u64>,
    files_max: Option<u64>,
}

impl ProcessStats {
    fn sample() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        let (limits, system) = (read("/proc/self/limits"), read("/proc/stat"));
        // The third field of the file follows the name, which may contain any character.
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

/// Returns the number that follows a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Samples the process and updates its metrics.
pub(crate) fn update() {
    let process = ProcessStats::sample();
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
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "Start time of the process, in seconds since 1970.");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory of the process.");
    describe_gauge!("process_threads", "Threads of the process.");
    describe_gauge!("process_open_fds", "Open file descriptors, sockets included.");
    describe_gauge!("process_max_fds", "Maximum number of open file descriptors.");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_value_can_be_read_on_linux() {
        let process = ProcessStats::sample();

        assert!(process.cpu_seconds.is_some_and(|seconds| seconds < 3600), "{process:?}");
        assert!(process.start_seconds.is_some_and(|start| start > 1_600_000_000), "{process:?}");
        assert!(process.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(
            process.threads > Some(0) && process.files > Some(2) && process.files_max > process.files,
            "{process:?}"
        );
    }
}
