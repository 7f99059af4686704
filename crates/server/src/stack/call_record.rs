//! The span, the metrics and the log line of a call, from its first byte to its last.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Request};
use tidings_trace::TraceParent;
use tonic::Code;
use tracing::Span;

use super::methods::MethodEntry;
use super::request_id::RequestId;
use super::{trace, trailers};
use crate::codes;
use crate::connection_state::ConnectionState;

/// A call. When dropped it writes the log line and updates the metrics, so every call counts once.
#[derive(Debug)]
pub(super) struct CallRecord {
    pub(super) path: Box<str>,
    pub(super) span: Span,
    /// The trace context of the call, if it belongs to a trace.
    pub(super) trace: Option<TraceParent>,
    id: RequestId,
    entry: Arc<MethodEntry>,
    started: Instant,
    code: Option<Code>,
    connection: Arc<ConnectionState>,
}

impl CallRecord {
    pub(super) fn begin<B>(
        entry: Arc<MethodEntry>,
        request: &Request<B>,
        id: RequestId,
        connection: Arc<ConnectionState>,
    ) -> Self {
        entry.metrics.started.increment(1);
        let path = request.uri().path();
        let span = trace::span(path.strip_prefix('/').unwrap_or(path), &id);
        Self {
            path: path.into(),
            trace: trace::join(&span, request.headers()),
            span,
            id,
            entry,
            started: Instant::now(),
            code: None,
            connection,
        }
    }

    /// Completes the status among the trailers, and remembers its code.
    pub(super) fn end(&mut self, trailers: &mut HeaderMap) {
        self.code = trailers::complete(trailers, &self.path, &self.id);
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        // Without a status the caller cancelled the call.
        if self.code.is_none() {
            self.connection.resets.record();
        }
        let code = self.code.unwrap_or(Code::Cancelled);
        let duration = self.started.elapsed();
        let metrics = &self.entry.metrics;
        if let Some(handled) = usize::try_from(i32::from(code)).ok().and_then(|code| metrics.handled.get(code)) {
            handled.increment(1);
        }
        metrics.seconds.record(duration);
        let name = codes::name(code);
        let is_server_fault = matches!(
            code,
            Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable | Code::DeadlineExceeded
        );
        trace::end(&self.span, code, is_server_fault);
        if is_server_fault {
            tracing::info!(parent: &self.span, code = name, ?duration, "call ended");
        } else {
            tracing::debug!(parent: &self.span, code = name, ?duration, "call ended");
        }
    }
}
