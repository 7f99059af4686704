//! The trace that a call is part of.

use http::HeaderMap;
use tidings_trace::{TraceParent, exporting};
use tonic::Code;
use tracing::Span;

use super::request_id::RequestId;

/// A span for a call. What only a collector wants is not in the log of a process that has none.
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

/// Makes the span of a call part of the trace of its caller, if the headers name one. Returns what names the call to whom it
/// causes to do something: its own span if that is exported, else that of its caller.
pub(super) fn join(span: &Span, headers: &HeaderMap) -> Option<TraceParent> {
    let caller = headers.get(TraceParent::HEADER).and_then(|text| TraceParent::parse(text.to_str().ok()?));
    if let Some(caller) = caller.filter(|_| exporting()) {
        caller.adopt(span);
    }
    let own = TraceParent::of(span).or(caller)?;
    span.record("trace_id", tracing::field::display(own.trace_id()));
    Some(own)
}

/// Says in the span of a call how it ended.
pub(super) fn end(span: &Span, code: Code, our_fault: bool) {
    if exporting() {
        span.record("rpc.grpc.status_code", i32::from(code));
        if our_fault {
            span.record("otel.status_code", "ERROR");
        }
    }
}
