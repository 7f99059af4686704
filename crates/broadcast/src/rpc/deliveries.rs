//! A span for each delivery of what was published within a trace, so that the trace ends where the message does.

use tidings_trace::{TraceParent, exporting};

use crate::model::Frame;
use crate::wire;

/// Makes the spans of a frame on its way out, if anybody gets to see them: one for messages of one cause that follow each
/// other. They have no length; where a delivery waited shows in the gap before.
pub(super) fn trace(frame: &Frame) {
    let Frame::Messages(messages) = frame else { return };
    if !exporting() {
        return;
    }
    let mut last = None;
    for cause in messages.iter().filter_map(|message| TraceParent::parse(&wire::trace_parent(message)?)) {
        if last.replace(cause) != Some(cause) {
            let span = tracing::info_span!(parent: None, "deliver", otel.kind = "producer");
            cause.adopt(&span);
            span.in_scope(|| {});
        }
    }
}
