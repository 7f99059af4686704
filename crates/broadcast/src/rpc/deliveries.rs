//! Spans of deliveries, so that the trace of a message includes its delivery to each subscriber.

use tidings_trace::{TraceParent, exporting};

use crate::model::SubscriptionFrame;
use crate::wire;

/// Makes the `deliver` spans of a frame that is sent, if spans are exported: one for consecutive
/// messages of the same trace. A span has no duration; the time before it is the wait for delivery.
pub(super) fn trace(frame: &SubscriptionFrame) {
    let SubscriptionFrame::Messages(messages) = frame else { return };
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
