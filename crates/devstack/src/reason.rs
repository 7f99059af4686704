//! Finds in what a server wrote why it ended.

use std::path::Path;

/// What tells more than the last line, the most telling first.
const TELLING: [&str; 6] =
    ["No space left on device", "Address already in use", "PANIC:", "FATAL:", "error:", "Failed"];

/// What stands between the head of a log line and its message: Postgres, initdb, Redis.
const HEADS: [&str; 5] = ["PANIC:", "FATAL:", "error:", "LOG:", " # "];

/// Returns the cause of an end in one line, as far as `written` or the disk under `dir` tells it.
pub(crate) fn reason(written: &str, dir: &Path) -> Option<String> {
    let lines = || written.lines().rev().filter(|line| !line.trim().is_empty());
    let telling = TELLING.iter().find_map(|word| lines().find(|line| line.contains(word)));
    match telling.or_else(|| lines().next()) {
        Some(line) => Some(message(line).to_owned()),
        None if is_full(dir) => Some(format!("No space left on device under {}", dir.display())),
        None => None,
    }
}

fn message(line: &str) -> &str {
    let rest = HEADS.iter().find_map(|head| line.split_once(head));
    rest.map_or(line, |(_, rest)| rest).trim()
}

/// On a full disk the log cannot tell of it either.
fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_preferred_to_the_last_line() {
        let written = "running bootstrap script ... 2025-01-01 00:00:00.000 UTC [9] FATAL:  could not write to file \
                       \"pg_wal/xlogtemp.9\": No space left on device\nchild process exited with exit code 1\n";
        let found = reason(written, Path::new("/"));
        assert_eq!(found.as_deref(), Some("could not write to file \"pg_wal/xlogtemp.9\": No space left on device"));
    }

    #[test]
    fn the_head_of_a_redis_line_is_left_out() {
        let written = "7:M 01 Jan 2025 00:00:00.000 # Failed listening on port 1 (TCP), aborting.\n";
        let found = reason(written, Path::new("/"));
        assert_eq!(found.as_deref(), Some("Failed listening on port 1 (TCP), aborting."));
    }
}
