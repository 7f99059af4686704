//! Who caused a call: W3C trace context, on its way in, through stores and queues, and out again.
//!
//! A [`TraceParent`] names the span of a call. It is passed on whether or not this process exports spans: a trace that others
//! see is not broken by a service that is silent. If it does ([`exporting`]), the spans in between are its own.

mod parent;

use std::sync::atomic::{AtomicBool, Ordering};

pub use parent::{TraceId, TraceParent};

/// Whether somebody gets to see the spans of this process.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Whether spans of this process are exported. What only makes spans need not be done if not.
pub fn exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Says that they are from now on: there is a layer of `tracing-opentelemetry`.
pub fn export() {
    EXPORTING.store(true, Ordering::Relaxed);
}
