//! Documents that people write name metrics and tests: what they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What people write by hand.
const WRITTEN: [&str; 6] =
    ["README.md", "SECURITY.md", "ARCHITECTURE.md", "docs/bench.md", "docs/faults.md", "docs/guide/user.md"];

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap()
}

/// The words of a text, those with underscores in one piece.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect()
}

#[test]
fn every_metric_that_a_document_names_is_one() {
    let known = read("docs/metrics.md");
    let known = words(&known);
    for document in WRITTEN {
        let text = read(document);
        let prefixes = ["tidings_redis_", "tidings_postgres_", "tidings_server_", "tidings_user_", "tidings_history_"];
        let prefixes =
            prefixes.into_iter().chain(["tidings_lock_", "tidings_broadcast_", "tidings_log_", "grpc_server_"]);
        for prefix in prefixes {
            for name in words(&text).into_iter().filter(|word| word.starts_with(prefix)) {
                assert!(known.contains(name), "{document} names {name}, which docs/metrics.md does not know");
            }
        }
    }
}

#[test]
fn every_test_that_the_architecture_or_a_guide_names_is_one() {
    let (architecture, guide) = (read("ARCHITECTURE.md"), read("docs/guide/user.md"));
    let rows = architecture.lines().filter(|line| line.starts_with("| **"));
    let named: BTreeSet<&str> = rows
        .chain(guide.lines().filter(|line| !line.starts_with("```")))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.matches('_').count() > 3)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let mut sources = String::new();
    gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("crates"), &mut sources);
    for name in named {
        // `..._on_an_evicted_key` is one that begins like the one before.
        let (begin, rest) = name.strip_prefix("...").map_or(("fn ", name), |rest| ("", rest));
        assert!(sources.contains(&format!("{begin}{rest}(")), "ARCHITECTURE.md names {name}, which is no test");
    }
}

/// All Rust below a directory.
fn gather(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
