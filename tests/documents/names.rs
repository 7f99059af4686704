//! Hand-written documents name only metrics and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Documents that are written by hand.
const WRITTEN: [&str; 7] = [
    "README.md",
    "SECURITY.md",
    "ARCHITECTURE.md",
    "docs/bench.md",
    "docs/compatibility.md",
    "docs/faults.md",
    "docs/guide/user.md",
];

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap()
}

/// Returns the words of a text; an underscore is part of a word.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect()
}

#[test]
fn every_metric_named_in_a_document_exists() {
    let known = read("docs/metrics.md");
    let known = words(&known);
    for document in WRITTEN {
        let text = read(document);
        let prefixes = ["tidings_redis_", "tidings_postgres_", "tidings_server_", "tidings_user_", "tidings_history_"];
        let prefixes =
            prefixes.into_iter().chain(["tidings_lock_", "tidings_broadcast_", "tidings_log_", "grpc_server_"]);
        for prefix in prefixes {
            for name in words(&text).into_iter().filter(|word| word.starts_with(prefix)) {
                assert!(known.contains(name), "{document} names {name}, which docs/metrics.md does not list");
            }
        }
    }
}

#[test]
fn every_test_named_in_a_document_exists() {
    let (architecture, compatibility) = (read("ARCHITECTURE.md"), read("docs/compatibility.md"));
    let guide = read("docs/guide/user.md");
    let rows = architecture.lines().filter(|line| line.starts_with("| **"));
    let named: BTreeSet<&str> = rows
        .chain(compatibility.lines())
        .chain(guide.lines().filter(|line| !line.starts_with("```")))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.matches('_').count() > 3)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let mut sources = String::new();
    gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("crates"), &mut sources);
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "a document names {name}, which is not a test");
    }
}

/// Appends all Rust sources below a directory.
fn gather(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
