//! The metrics of a process, for Prometheus.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;

use crate::process;

/// Upper bounds of the buckets of all histograms in seconds: from a hit in memory to the longest
/// call.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 60.0];

/// The recorder of this process. There is one, and all crates write to it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Interval at which samples are moved into buckets; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Starts to record the metrics of a service, even if no endpoint serves them. Needs a runtime.
pub fn start(service: &str) {
    let Some(metrics) = install_recorder() else { return };
    let labels = [("service", service.to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    gauge!("tidings_build_info", &labels).set(1);
    // Runs as long as the process.
    tokio::spawn(async move {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            metrics.run_upkeep();
        }
    });
}

/// Renders the current metrics in the Prometheus text format.
pub(crate) fn render(metrics: &PrometheusHandle) -> String {
    process::update();
    metrics.render()
}

/// Installs the recorder; earlier measurements are lost. `None` if the process already has another
/// one.
pub(crate) fn install_recorder() -> Option<&'static PrometheusHandle> {
    let start = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
        let handle = builder.ok()?.install_recorder().ok()?;
        describe();
        Some(handle)
    };
    RECORDER.get_or_init(start).as_ref()
}

/// Describes the metrics of the server. The names are those that gRPC dashboards expect.
fn describe() {
    process::describe();
    describe_gauge!("tidings_build_info", "Constant 1, labelled with the service and its version.");
    describe_counter!("grpc_server_started_total", "Calls started, by method.");
    describe_counter!("grpc_server_handled_total", "Calls completed, by method and code.");
    describe_histogram!(
        "grpc_server_handling_seconds",
        Unit::Seconds,
        "Duration of calls from the first byte to the last, by method."
    );
    describe_counter!("tidings_server_shed_total", "Calls refused because a concurrency limit was reached, by limit.");
    describe_counter!(
        "tidings_log_lines_dropped_total",
        "Log lines dropped, by cause: the rate limit (100 per second for each place in the code), or stderr, which was \
         not read in time."
    );
    for cause in ["rate_limit", "stderr"] {
        counter!("tidings_log_lines_dropped_total", "cause" => cause).increment(0); // exported from the start
    }
    describe_counter!("tidings_server_panics_total", "Calls that ended in a panic, which is always a bug.");
    counter!("tidings_server_panics_total").increment(0); // exported from the start
    describe_gauge!(
        "tidings_server_calls_in_flight",
        "Calls in flight, without streams and calls that wait for a lock."
    );
    describe_gauge!("tidings_server_streams", "Open streams.");
    describe_gauge!("tidings_server_connections", "Open connections.");
    describe_counter!(
        "tidings_server_connections_cut_total",
        "Connections cut without an orderly end, by cause: dead clients, too many resets, calls that outlived the age."
    );
    describe_counter!(
        "tidings_server_send_timeouts_total",
        "Calls reset because their clients had stopped to read the response."
    );
    counter!("tidings_server_send_timeouts_total").increment(0); // exported from the start
    describe_counter!("tidings_server_tls_reloads_total", "Reloads of changed certificates, by outcome.");
    describe_counter!("tidings_server_token_reloads_total", "Reloads of the changed token list, by outcome.");
    describe_gauge!(
        "tidings_server_tls_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "Expiry time of the certificate in use, in seconds since 1970."
    );
}
