//! A call from its first byte to its last: its span, its numbers, its line in the log.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use tidings_trace::TraceParent;
use tonic::Code;
use tracing::Span;

use super::methods::Entry;
use super::request_id::RequestId;
use super::{trace, trailers};
use crate::codes;

/// One call; writes its line and is counted when dropped, so every call is exactly once.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: Box<str>,
    pub(super) span: Span,
    /// The trace that it is part of, if it is part of one.
    pub(super) trace: Option<TraceParent>,
    id: RequestId,
    entry: Arc<Entry>,
    started: Instant,
    code: Option<Code>,
}

impl Record {
    pub(super) fn begin(entry: Arc<Entry>, path: &str, headers: &HeaderMap, id: RequestId) -> Self {
        entry.numbers.started.increment(1);
        let span = trace::span(path.strip_prefix('/').unwrap_or(path), &id);
        Self {
            path: path.into(),
            trace: trace::join(&span, headers),
            span,
            id,
            entry,
            started: Instant::now(),
            code: None,
        }
    }

    /// Takes note of the status among the trailers, and completes it.
    pub(super) fn end(&mut self, trailers: &mut HeaderMap) {
        self.code = trailers::complete(trailers, &self.path, &self.id);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without a status the caller went away first.
        let code = self.code.unwrap_or(Code::Cancelled);
        let took = self.started.elapsed();
        let numbers = &self.entry.numbers;
        if let Some(handled) = usize::try_from(i32::from(code)).ok().and_then(|code| numbers.handled.get(code)) {
            handled.increment(1);
        }
        numbers.seconds.record(took);
        let name = codes::name(code);
        let our_fault = matches!(
            code,
            Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable | Code::DeadlineExceeded
        );
        trace::end(&self.span, code, our_fault);
        if our_fault {
            tracing::info!(parent: &self.span, code = name, duration = ?took, "call ended");
        } else {
            tracing::debug!(parent: &self.span, code = name, duration = ?took, "call ended");
        }
    }
}
