//! `tidings bench` against the real services.

use serde_json::Value;

use crate::support::{TidingsUp, output_of, stderr};

/// Flags with which all scenarios together take some seconds.
const SHORT_RUN: &str =
    "--time 500ms --warm-up 0s --in-flight 4 --keys 5 --batch 5 --subscribers 3 --quiet --output jsonl";

/// Runs scenarios and returns their results.
fn bench(tidings: &TidingsUp, arguments: &[&str]) -> Vec<Value> {
    let short_run: Vec<_> = SHORT_RUN.split(' ').collect();
    let output = output_of(&mut tidings.command(&[&["bench"], &short_run[..], arguments].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_scenario_runs_without_unexpected_errors() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let list = String::from_utf8(output_of(&mut tidings.command(&["bench", "--list"])).stdout).unwrap();
    let names: Vec<_> =
        list.lines().filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty())).collect();
    assert!(names.len() > 20, "{list}");

    let results = bench(&tidings, &names);

    let completed: Vec<_> = results.iter().map(|result| result["scenario"].as_str().unwrap()).collect();
    assert_eq!(completed, names);
    for result in results {
        assert!(result["calls"].as_u64() > result["failed"].as_u64(), "{result}");
        assert_eq!(unexpected_errors(&result), [""; 0], "{result}");
    }

    // An open loop sends the requested number of calls, even on a busy machine.
    let result = &bench(&tidings, &["get-user", "subscribe", "--rate", "40"])[1];
    assert_eq!(result["calls"], 20, "{result}");
    assert_eq!(unexpected_errors(result), [""; 0], "{result}");
}

/// Returns the reasons of failed calls, except those of an overloaded machine.
fn unexpected_errors(result: &Value) -> Vec<&str> {
    const OVERLOAD_CODES: [&str; 3] = ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"];
    let errors = result["errors"].as_array().unwrap().iter();
    errors
        .filter(|error| !OVERLOAD_CODES.contains(&error["code"].as_str().unwrap()))
        .filter_map(|error| error["reason"].as_str())
        .collect()
}
