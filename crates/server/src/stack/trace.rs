//! The trace context of a call.

use http::HeaderMap;
use tidings_trace::{TraceParent, exporting};
use tonic::{Code, Request};
use tracing::Span;

use super::request_id::RequestId;

/// Creates the span of a call. Fields for the collector are empty if the process exports no spans.
pub(super) fn span(method: &str, id: &RequestId) -> Span {
    let exported = exporting();
    tracing::info_span!(
        "rpc",
        method,
        request_id = id.as_str(),
        trace_id = tracing::field::Empty,
        otel.name = exported.then_some(method),
        otel.kind = exported.then_some("server"),
        otel.status_code = tracing::field::Empty,
        rpc.grpc.status_code = tracing::field::Empty,
    )
}

/// Joins the span of a call to the trace of its caller, if the headers name one. Returns the trace
/// context for downstream work: the call's own span if spans are exported, else that of the caller.
pub(super) fn join(span: &Span, headers: &HeaderMap) -> Option<TraceParent> {
    let caller = headers.get(TraceParent::HEADER).and_then(|text| TraceParent::parse(text.to_str().ok()?));
    if let Some(caller) = caller.filter(|_| exporting()) {
        caller.adopt(span);
    }
    let own = TraceParent::of(span).or(caller)?;
    span.record("trace_id", tracing::field::display(own.trace_id()));
    Some(own)
}

/// Returns the trace context of a call, for work that it causes elsewhere; `None` if neither the
/// caller nor this process traces it.
pub fn trace_parent<T>(request: &Request<T>) -> Option<TraceParent> {
    request.extensions().get().copied()
}

/// Records the outcome of a call in its span.
pub(super) fn end(span: &Span, code: Code, is_server_fault: bool) {
    if exporting() {
        span.record("rpc.grpc.status_code", i32::from(code));
        if is_server_fault {
            span.record("otel.status_code", "ERROR");
        }
    }
}
