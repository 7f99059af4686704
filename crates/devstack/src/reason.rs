//! Finds the cause of a server's end in its log.

use std::path::Path;

/// Markers of lines that name the cause better than the last line, most specific first.
const CAUSE_MARKERS: [&str; 6] =
    ["No space left on device", "Address already in use", "PANIC:", "FATAL:", "error:", "Failed"];

/// Text between the prefix of a log line and its message: Postgres, initdb, Redis.
const PREFIX_ENDS: [&str; 5] = ["PANIC:", "FATAL:", "error:", "LOG:", " # "];

/// Returns the cause in one line, from `log` or from a full disk under `dir`.
pub(crate) fn reason(log: &str, dir: &Path) -> Option<String> {
    let lines = || log.lines().rev().filter(|line| !line.trim().is_empty());
    let marked = CAUSE_MARKERS.iter().find_map(|word| lines().find(|line| line.contains(word)));
    match marked.or_else(|| lines().next()) {
        Some(line) => Some(message(line).to_owned()),
        None if is_full(dir) => Some(format!("No space left on device under {}", dir.display())),
        None => None,
    }
}

fn message(line: &str) -> &str {
    let rest = PREFIX_ENDS.iter().find_map(|prefix| line.split_once(prefix));
    rest.map_or(line, |(_, rest)| rest).trim()
}

/// Returns true if the disk is full. Then the log cannot be written either.
fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_preferred_to_the_last_line() {
        let log = "running bootstrap script ... 2025-01-01 00:00:00.000 UTC [9] FATAL:  could not write to file \
                       \"pg_wal/xlogtemp.9\": No space left on device\nchild process exited with exit code 1\n";
        let found = reason(log, Path::new("/"));
        assert_eq!(found.as_deref(), Some("could not write to file \"pg_wal/xlogtemp.9\": No space left on device"));
    }

    #[test]
    fn the_prefix_of_a_redis_log_line_is_dropped() {
        let log = "7:M 01 Jan 2025 00:00:00.000 # Failed listening on port 1 (TCP), aborting.\n";
        let found = reason(log, Path::new("/"));
        assert_eq!(found.as_deref(), Some("Failed listening on port 1 (TCP), aborting."));
    }
}
