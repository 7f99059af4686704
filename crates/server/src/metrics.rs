//! The numbers of a process, for Prometheus.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};

/// Serves the metrics of this process over HTTP, whatever path is asked for, until the process ends. The first call of a
/// process decides.
///
/// # Errors
/// The address can not be bound.
pub(crate) fn expose(address: SocketAddr) -> Result<(), BuildError> {
    PrometheusBuilder::new().with_http_listener(address).install()
}
