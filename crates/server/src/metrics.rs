//! The numbers of a process, for Prometheus.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;

use crate::process;

/// Upper ends of the buckets of whatever is measured in seconds: from a hit in memory to the longest call.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 60.0];

/// The numbers of this process: there is one place for them, which all crates write to.
static NUMBERS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// How often measured times are sorted into buckets: until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to keep the numbers of a service, whether or not anybody asks for them. Needs a runtime.
pub(crate) fn begin(service: &str) {
    let Some(numbers) = keep() else { return };
    let labels = [("service", service.to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    gauge!("tidings_build_info", &labels).set(1);
    // For as long as the process lives.
    tokio::spawn(async move {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            numbers.run_upkeep();
        }
    });
}

/// All numbers as they are now, as Prometheus reads them.
pub(crate) fn text(numbers: &PrometheusHandle) -> String {
    process::measure();
    numbers.render()
}

/// Begins to keep numbers; what was counted before is lost. `None` if somebody else keeps them.
pub(crate) fn keep() -> Option<&'static PrometheusHandle> {
    let begin = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
        let handle = builder.ok()?.install_recorder().ok()?;
        describe();
        Some(handle)
    };
    NUMBERS.get_or_init(begin).as_ref()
}

/// What the server counts. The names are those that dashboards for gRPC expect.
fn describe() {
    process::describe();
    describe_gauge!("tidings_build_info", "1, with the service and its version.");
    describe_counter!("grpc_server_started_total", "Calls that began, by method.");
    describe_counter!("grpc_server_handled_total", "Calls that ended, by method and code.");
    describe_histogram!(
        "grpc_server_handling_seconds",
        Unit::Seconds,
        "Time from the first byte of a call to its last, by method."
    );
    describe_counter!("tidings_server_shed_total", "Calls refused because there were as many as may be, by limit.");
    describe_counter!(
        "tidings_log_lines_left_out_total",
        "Lines that are not in the log because there were a hundred of their kind within a second."
    );
    counter!("tidings_log_lines_left_out_total").increment(0); // there from the start
    describe_counter!("tidings_server_panics_total", "Calls that ended in a panic: bugs.");
    counter!("tidings_server_panics_total").increment(0); // there from the start
    describe_gauge!("tidings_server_calls_in_flight", "Calls that are worked on right now.");
    describe_gauge!("tidings_server_streams", "Streams that are open right now.");
    describe_gauge!("tidings_server_connections", "Connections that are open right now.");
    describe_counter!("tidings_server_tls_reloads_total", "Times that certificates were read anew, by outcome.");
    describe_counter!("tidings_server_token_reloads_total", "Times that the list of tokens was read anew, by outcome.");
    describe_gauge!(
        "tidings_server_tls_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the certificate in use expires, in seconds since 1970."
    );
}
