//! `tidings bench` against services that refuse, hang or do not run. The suite runs every scenario
//! against the real ones.

use std::fs;

use serde_json::Value;

use crate::fake::{Fake, FakeFaults};
use crate::{CommandResult, tidings};

/// Runs a scenario for half a second against a fake.
fn bench(fake: &Fake, arguments: &[&str]) -> CommandResult {
    let address = fake.address();
    let usual = ["bench", "--addr", &address, "--time", "500ms", "--warm-up", "0s", "--quiet", "--keys", "5"];
    tidings(&[&usual[..], arguments].concat())
}

fn json(run: &CommandResult) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Without thresholds there is no verdict.
#[test]
fn the_table_has_a_line_for_each_scenario() {
    let fake = Fake::start(FakeFaults::default());

    let run = bench(&fake, &["create-user", "get-user", "--in-flight", "2"]);

    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let lines: Vec<_> = run.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(lines, ["scenario", "create-user", "get-user"]);
}

#[test]
fn thresholds_determine_the_exit_code() {
    let fake = Fake::start(FakeFaults::default());

    let yes = bench(&fake, &["get-user", "--p99", "1h", "--min-rate", "0.001"]);
    let no = bench(&fake, &["get-user", "--p99", "1h", "--min-rate", "1000000000"]);

    assert_eq!((yes.code, no.code), (0, 1));
    assert!(yes.out.contains("\nPASS get-user: p99 "), "{}", yes.out);
    assert!(no.out.contains("\nFAIL get-user: rate ") && !no.out.contains("FAIL get-user: p99"), "{}", no.out);
    assert_eq!(no.err, "tidings: thresholds missed: get-user\n");
}

#[test]
fn failed_calls_are_counted_by_code_and_reason() {
    let fake = Fake::start(FakeFaults { unavailable_first: 10, ..FakeFaults::default() });

    let run = bench(&fake, &["create-user", "--rate", "100", "--output", "jsonl"]);

    let result = json(&run);
    assert_eq!((run.code, &result["calls"], &result["failed"]), (0, &50.into(), &10.into()));
    let errors = serde_json::json!([{"code": "UNAVAILABLE", "reason": "STORE_AWAY", "count": 10}]);
    assert_eq!(result["errors"], errors);
    assert_eq!((run.out.lines().count(), &result["passed"]), (1, &Value::Null));
}

#[test]
fn calls_that_hang_are_in_the_latencies() {
    let fake = Fake::start(FakeFaults { hang_first: 10, ..FakeFaults::default() });

    let run = bench(&fake, &["create-user", "--rate", "100", "--timeout", "1s", "--p99", "900ms", "--output", "json"]);

    let result = json(&run);
    assert_eq!(run.code, 1);
    assert_eq!(
        (&result["errors"][0]["code"], &result["errors"][0]["count"]),
        (&"DEADLINE_EXCEEDED".into(), &10.into())
    );
    assert!(result["latency_ms"]["p99"].as_f64().unwrap() >= 1000.0, "{result}");
}

#[test]
fn a_service_that_does_not_run_is_an_error() {
    let absent = ["bench", "--addr", "127.0.0.1:1", "--time", "200ms", "--warm-up", "0s", "--quiet"];

    let unprepared = tidings(&[&absent[..], &["get-user"]].concat());
    let failed = tidings(&[&absent[..], &["create-user"]].concat());

    assert_eq!((unprepared.code, failed.code), (3, 3));
    assert!(unprepared.err.contains("get-user: preparation failed: UNAVAILABLE"), "{}", unprepared.err);
    assert!(failed.err.contains("create-user: all calls failed"), "{}", failed.err);
    assert!(failed.out.contains(" x UNAVAILABLE "), "{}", failed.out);
}

#[test]
fn a_plot_has_a_curve_for_each_scenario() {
    let fake = Fake::start(FakeFaults::default());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plot.svg");

    let run = bench(&fake, &["create-user", "get-user", "--plot", path.to_str().unwrap()]);

    assert_eq!(run.code, 0);
    let svg = fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline ").count(), 2);
    assert!(svg.contains(">create-user, 64 callers</text>") && !svg.contains("NaN"), "{svg}");

    let nowhere = bench(&fake, &["create-user", "--plot", "/nowhere/plot.svg"]);
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.err.contains("cannot write /nowhere/plot.svg: "), "{}", nowhere.err);
}

#[test]
fn the_list_names_the_methods_of_each_scenario() {
    let run = tidings(&["bench", "--list"]);

    assert_eq!(run.code, 0);
    assert!(run.out.contains("acquire-release ") && run.out.contains("  AcquireLock, ReleaseLock\n"), "{}", run.out);
}
