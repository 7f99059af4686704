//! Export of spans to a collector over OTLP, if one is configured: calls, the relay's `publish` of
//! an outbox row, and each `deliver` to a subscriber.

use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use tracing::{Level, Metadata};

/// Maximum number of queued spans. Further ones are dropped: no call waits for a collector.
const QUEUE_SPANS: usize = 8192;
/// Maximum number of spans in a batch.
const BATCH_SPANS: usize = 512;
/// Time for which spans are collected before they are sent.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Longest wait for the collector to accept a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that unsent spans delay the end of the process.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of the export of spans.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Collector that receives the spans of calls by OTLP over gRPC without TLS, e.g.
    /// `http://127.0.0.1:4317`. Without it no spans are made, and the trace context of callers is
    /// passed on unchanged.
    #[arg(long, env = "TIDINGS_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<Uri>,

    /// Share of the traces started here that is recorded, 0 to 1; for other traces the caller
    /// decides.
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

/// The exporter of spans to the collector. It sends them in its own thread.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Creates an exporter to the configured collector, if any. It connects when there are spans to
    /// send, and retries indefinitely; spans are lost while the collector is unavailable.
    ///
    /// Needs a runtime that lives as long as the exporter.
    pub(super) fn open(args: &Args, service: &str) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.to_string())
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS)
            .with_max_export_batch_size(BATCH_SPANS)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let resource = Resource::builder()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.otlp_sample))))
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("tidings")
    }

    /// Sends the remaining spans, with a timeout.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FINISH_TIMEOUT) {
            tracing::debug!(%error, "could not send the remaining spans");
        }
    }
}

/// Returns whether this is exported: only our spans are, no log events.
pub(super) fn exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("tidings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_needs_a_plain_http_url() {
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
