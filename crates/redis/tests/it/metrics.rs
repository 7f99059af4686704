//! The metrics of lanes.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidings_devstack::testing::{eventually, own_redis};
use tidings_redis::{Redis, Role, cmd};

use super::support::{LONG_TIMEOUT, args, connected_lane, connection_id};

/// Returns the value of a metric; `name` includes its labels.
fn value(metrics: &PrometheusHandle, name: &str) -> f64 {
    let text = metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} is missing in:\n{text}")).parse().unwrap()
}

/// Errors of every kind are exported as 0 from the start.
#[tokio::test]
async fn calls_errors_lanes_and_incarnations_are_counted() {
    let server = own_redis().await;
    let recorder = PrometheusBuilder::new().set_buckets(&[60.0]).unwrap().build_recorder();
    let metrics = recorder.handle();
    let args = args(&server, 2, LONG_TIMEOUT);
    let redis = metrics::with_local_recorder(&recorder, || Redis::open(&args, "test", Role::Cache).unwrap());
    let (up, incarnations, connects) =
        ("tidings_redis_lanes_up", "tidings_redis_incarnations_total", "tidings_redis_connects_total");
    let is = |name: &str, expected: f64| (value(&metrics, name) - expected).abs() < 0.5;
    for kind in ["away", "unanswered", "unwritable", "refused", "shed"] {
        assert!(is(&format!(r#"tidings_redis_errors_total{{kind="{kind}"}}"#), 0.0));
    }

    eventually("both lanes are up", async || is(up, 2.0)).await;
    let mut lane = connected_lane(&redis).await;
    let before = value(&metrics, r#"tidings_redis_call_seconds_count{call="command"}"#);
    lane.send::<i64>(cmd("INCR").arg(lane.key(format_args!("n")))).await.unwrap();
    lane.send::<i64>(&cmd("NONSENSE")).await.unwrap_err();

    assert!(is(r#"tidings_redis_call_seconds_count{call="command"}"#, before + 2.0));
    assert!(is(r#"tidings_redis_errors_total{kind="refused"}"#, 1.0));
    assert!(is(incarnations, 1.0) && is(connects, 2.0));

    server.kill().await;
    eventually("no lane is up", async || is(up, 0.0)).await;
    server.start().await.unwrap();
    eventually("both lanes are up again", async || is(up, 2.0)).await;
    assert!(is(incarnations, 2.0) && is(connects, 4.0));
    connection_id(redis.reader().await).await.unwrap();
}
