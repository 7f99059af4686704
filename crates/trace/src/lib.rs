//! W3C trace context of calls, propagated through headers, stores and queues.
//!
//! A [`TraceParent`] identifies the span of a call. A process propagates it even if it exports no
//! spans itself, so its silence does not break a trace. If it does export ([`exporting`]), its own
//! spans become part of the trace.

mod parent;

use std::sync::atomic::{AtomicBool, Ordering};

pub use parent::{TraceId, TraceParent};

/// True once the spans of this process are exported.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Returns true if spans of this process are exported. If not, callers skip work that only serves
/// spans.
pub fn exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Records that spans are exported from now on, by a layer of `tracing-opentelemetry`.
pub fn export() {
    EXPORTING.store(true, Ordering::Relaxed);
}
