//! `tidings bench` against the real services.

use serde_json::Value;

use crate::support::{Up, finish, stderr};

/// So small that all of them take some seconds.
const SMALL: &str = "--time 500ms --warm-up 0s --in-flight 4 --keys 5 --batch 5 --subscribers 3 --quiet --output jsonl";

/// Runs scenarios and returns what each of them measured.
fn bench(up: &Up, arguments: &[&str]) -> Vec<Value> {
    let small: Vec<_> = SMALL.split(' ').collect();
    let output = finish(&mut up.command(&[&["bench"], &small[..], arguments].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_scenario_runs_for_a_moment_and_makes_no_call_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let list = String::from_utf8(finish(&mut up.command(&["bench", "--list"])).stdout).unwrap();
    let names: Vec<_> =
        list.lines().filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty())).collect();
    assert!(names.len() > 20, "{list}");

    let results = bench(&up, &names);

    let ran: Vec<_> = results.iter().map(|result| result["scenario"].as_str().unwrap()).collect();
    assert_eq!(ran, names);
    for result in results {
        assert!(result["calls"].as_u64() > result["failed"].as_u64(), "{result}");
        assert_eq!(wrong(&result), [""; 0], "{result}");
    }

    // An open loop sends what was asked for, however busy the machine is.
    let result = &bench(&up, &["get-user", "subscribe", "--rate", "40"])[1];
    assert_eq!(result["calls"], 20, "{result}");
    assert_eq!(wrong(result), [""; 0], "{result}");
}

/// Why calls failed, but for what a service says on a machine that has no time for it.
fn wrong(result: &Value) -> Vec<&str> {
    const BUSY: [&str; 3] = ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"];
    let errors = result["errors"].as_array().unwrap().iter();
    errors
        .filter(|error| !BUSY.contains(&error["code"].as_str().unwrap()))
        .filter_map(|error| error["reason"].as_str())
        .collect()
}
