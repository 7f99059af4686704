//! Where the spans of a service go: to a collector over OTLP, if one is named.

use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use tracing::{Level, Metadata};

/// Spans that wait to be sent; what is more is dropped: no call waits for a collector.
const QUEUE: usize = 8192;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long spans are collected before they are sent.
const DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take to accept them.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what has not been sent.
const LINGER: Duration = Duration::from_secs(2);

/// What is traced, and where to.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Collector to send the spans of calls to, by OTLP over gRPC without TLS, e.g. `http://127.0.0.1:4317`; without it none
    /// are made, and the traces of callers are passed on as they came.
    #[arg(long, env = "TIDINGS_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<Uri>,

    /// Share of the traces that begin here which is recorded, 0 to 1; those that callers began are recorded if they say so.
    #[arg(long, env = "TIDINGS_OTLP_SAMPLE", default_value_t = Self::default().otlp_sample, value_name = "SHARE",
          value_parser = share)]
    pub otlp_sample: f64,
}

impl Default for Args {
    fn default() -> Self {
        Self { otlp_endpoint: None, otlp_sample: 1.0 }
    }
}

fn endpoint(text: &str) -> Result<Uri, &'static str> {
    let plain = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    text.parse().ok().filter(plain).ok_or("expected http://HOST:PORT")
}

fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("expected a number from 0 to 1")
}

/// What takes the spans of this process to the collector. They are sent by a thread of its own.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// An exporter to the collector that the settings name, if they name one. Connects when there is something to send, and
    /// goes on for ever: a collector that is away costs spans.
    ///
    /// Needs a runtime, and that it lives as long as the exporter.
    pub(super) fn open(args: &Args, service: &str) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
        let exporter =
            SpanExporter::builder().with_tonic().with_endpoint(endpoint.to_string()).with_timeout(PATIENCE).build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let named = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.otlp_sample))))
            .with_resource(named)
            .build();
        Ok(Some(Self(provider)))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("tidings")
    }

    /// Sends what is left, for a while.
    pub(crate) fn finish(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LINGER) {
            tracing::debug!(%error, "spans were not sent");
        }
    }
}

/// What is exported: spans of ours, and no lines of the log.
pub(super) fn exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("tidings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_a_plain_url() {
        assert!(endpoint("http://127.0.0.1:4317").is_ok());
        for text in ["", "127.0.0.1:4317", "https://collector:4317", "http://", "grpc://collector"] {
            assert_eq!(endpoint(text), Err("expected http://HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(share("0.25"), Ok(0.25));
        for text in ["", "-0.1", "1.5", "NaN", "all"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
