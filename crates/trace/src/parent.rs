//! The header `traceparent` of W3C Trace Context, version 00.
//!
//! The second header, `tracestate`, is dropped, which the standard allows: it is vendor-specific.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A span of a trace, with the flag whether the trace is recorded. Displayed and parsed in the form
/// of the header, e.g. `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: u64,
    flags: u8,
}

/// Id of a trace: 32 hex digits, not all 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceParent {
    /// Name of the header and of the gRPC metadata key.
    pub const HEADER: &str = "traceparent";

    /// Parses a header. Returns `None` if it is malformed; the call then has no trace. Accepts
    /// later versions of the standard and ignores their additional parts.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut number = |digits| hex(parts.next()?, digits);
        let (version, trace, span, flags) = (number(2)?, number(32)?, number(16)?, number(2)?);
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: u64::try_from(span).ok()?, flags: u8::try_from(flags).ok()? })
    }

    /// Returns the context of a span; `None` if the span is not exported.
    pub fn of(span: &Span) -> Option<Self> {
        if !crate::exporting() {
            return None;
        }
        let context = span.context();
        let named = context.span().span_context().clone();
        named.is_valid().then(|| Self {
            trace: TraceId(u128::from_be_bytes(named.trace_id().to_bytes())),
            span: u64::from_be_bytes(named.span_id().to_bytes()),
            flags: named.trace_flags().to_u8(),
        })
    }

    /// Returns the context of the current span; `None` if it is not exported.
    pub fn current() -> Option<Self> {
        if crate::exporting() { Self::of(&Span::current()) } else { None }
    }

    /// Makes a new, not yet entered span a child of this one.
    pub fn adopt(self, span: &Span) {
        let named = SpanContext::new(
            opentelemetry::trace::TraceId::from_bytes(self.trace.0.to_be_bytes()),
            SpanId::from_bytes(self.span.to_be_bytes()),
            TraceFlags::new(self.flags),
            true,
            TraceState::NONE,
        );
        // Fails only if spans are not exported or the span was entered; it is a root then.
        let _ = span.set_parent(Context::new().with_remote_span_context(named));
    }

    /// Returns the id of the trace.
    pub fn trace_id(self) -> TraceId {
        self.trace
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Parses exactly `digits` lower-case hex digits, as the standard requires.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let legal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(legal) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOME: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_survives_parsing_and_display() {
        let parent = TraceParent::parse(SOME).unwrap();

        assert_eq!(parent.to_string(), SOME);
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_malformed_header_is_none() {
        let zero = SOME.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let no_span = SOME.replace("b7ad6b7169203331", "0000000000000000");
        let short = &SOME[..SOME.len() - 1];
        let long = format!("{SOME}-more");
        let reserved = SOME.replacen("00", "ff", 1);
        let upper = SOME.to_uppercase();
        let plus = SOME.replacen("-0a", "-+a", 1);
        for text in ["", "00", &zero, &no_span, short, &long, &reserved, &upper, &plus] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn later_versions_are_accepted_without_their_extra_parts() {
        let later = SOME.replacen("00", "cc", 1) + "-what-the-future-will-be-like";

        assert_eq!(TraceParent::parse(&later).unwrap().to_string(), SOME);
    }

    #[test]
    fn no_span_is_current_if_none_is_exported() {
        assert_eq!(TraceParent::current(), None);
        assert_eq!(TraceParent::of(&tracing::info_span!("span")), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}", hex in "[0-9a-f-]{0,60}") {
            let _ = TraceParent::parse(&text);
            let _ = TraceParent::parse(&hex);
        }
    }
}
