//! What is counted of Redis.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidings_redis::{Redis, Role, cmd};

use super::support::{LONG, args, connected, connection, eventually, own};

/// The value of a metric with its labels.
fn value(numbers: &PrometheusHandle, name: &str) -> f64 {
    let text = numbers.render();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
}

#[tokio::test]
async fn calls_errors_lanes_and_reigns_are_counted_from_the_start() {
    let stack = own().await;
    let recorder = PrometheusBuilder::new().set_buckets(&[60.0]).unwrap().build_recorder();
    let numbers = recorder.handle();
    let args = args(&stack, 2, LONG);
    let redis = metrics::with_local_recorder(&recorder, || Redis::open(&args, "test", Role::Cache).unwrap());
    let (up, reigns, connects) =
        ("tidings_redis_lanes_up", "tidings_redis_reigns_total", "tidings_redis_connects_total");
    let is = |name: &str, wanted: f64| (value(&numbers, name) - wanted).abs() < 0.5;
    for kind in ["away", "unanswered", "unwritable", "refused", "shed"] {
        assert!(is(&format!(r#"tidings_redis_errors_total{{kind="{kind}"}}"#), 0.0));
    }

    eventually("both lanes are up", async || is(up, 2.0)).await;
    let mut lane = connected(&redis).await;
    let before = value(&numbers, r#"tidings_redis_call_seconds_count{call="command"}"#);
    lane.send::<i64>(cmd("INCR").arg(lane.key(format_args!("n")))).await.unwrap();
    lane.send::<i64>(&cmd("NONSENSE")).await.unwrap_err();

    assert!(is(r#"tidings_redis_call_seconds_count{call="command"}"#, before + 2.0));
    assert!(is(r#"tidings_redis_errors_total{kind="refused"}"#, 1.0));
    assert!(is(reigns, 1.0) && is(connects, 2.0));

    stack.redis().kill().await;
    eventually("no lane is up", async || is(up, 0.0)).await;
    stack.redis().start().await.unwrap();
    eventually("both lanes are up again", async || is(up, 2.0)).await;
    assert!(is(reigns, 2.0) && is(connects, 4.0));
    connection(redis.reader().await).await.unwrap();
}
