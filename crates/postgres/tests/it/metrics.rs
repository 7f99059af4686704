//! Metrics of Postgres.

use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::Connection as _;
use tidings_devstack::testing::{self, eventually};

use super::support::{ask, start};

#[tokio::test]
async fn waits_work_connections_and_errors_are_counted() {
    let recorder = PrometheusBuilder::new().set_buckets(&[60.0]).unwrap().build_recorder();
    let metrics = recorder.handle();
    let here = metrics::set_default_local_recorder(&recorder);
    let postgres = start(testing::shared().await).await;
    drop(here);
    let has = |line: &str| metrics.render().lines().any(|found| found == line);
    for pool in ["callers", "background"] {
        for kind in ["unique", "retryable", "exhausted", "away", "refused", "ambiguous", "full", "other"] {
            let name = format!(r#"tidings_postgres_errors_total{{pool="{pool}",kind="{kind}"}}"#);
            assert!(metrics.render().contains(&name), "{name}");
        }
    }
    let background = |state, count: u32| {
        has(&format!(r#"tidings_postgres_connections{{pool="background",state="{state}"}} {count}"#))
    };

    let pinged = postgres.run_background(async |connection| {
        assert!(background("in_use", 1), "{}", metrics.render());
        connection.ping().await
    });
    pinged.await.unwrap();
    ask(&postgres, "SELECT nonsense").await.unwrap_err();

    eventually("it is idle again", async || background("in_use", 0) && background("idle", 1)).await;
    for name in ["acquire", "run"] {
        let line = format!(r#"tidings_postgres_{name}_seconds_count{{pool="background"}} 1"#);
        assert!(has(&line), "{line}: {}", metrics.render());
    }
    assert!(has(r#"tidings_postgres_errors_total{pool="callers",kind="other"} 1"#), "{}", metrics.render());
}
