//! An OTLP collector that stores spans in memory.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::time::{Instant, sleep};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::service::MAX_WAIT;

/// A collector that runs as long as the runtime of the test.
pub(super) struct Collector {
    pub(super) url: String,
    spans: Spans,
}

/// A received span; ids are in hex, as in `traceparent`.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) service: String,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) name: String,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Collector {
    pub(super) fn start() -> Self {
        let spans = Spans::default();
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let server = Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { url, spans }
    }

    /// Waits for a span with this trace id, name and parent span id.
    pub(super) async fn find(&self, trace: &str, name: &str, parent: &str) -> Span {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let spans = self.spans.0.lock().unwrap().clone();
            let wanted = |span: &&Span| span.trace == trace && span.name == name && span.parent == parent;
            if let Some(span) = spans.iter().find(wanted) {
                return span.clone();
            }
            assert!(Instant::now() < deadline, "no {name} below {parent} in {trace}: {spans:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut all = self.0.lock().unwrap();
        for sent in request.into_inner().resource_spans {
            let service = sent.resource.as_ref().map(name).unwrap_or_default();
            all.extend(sent.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Returns the attribute `service.name` of a resource.
fn name(resource: &Resource) -> String {
    let attribute = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.clone()) {
        Some(Value::StringValue(name)) => name,
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
