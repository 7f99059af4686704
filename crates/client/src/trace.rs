//! The trace that a call is part of, as its service is told.

use tidings_trace::TraceParent;
use tonic::Request;

/// Makes a call part of a trace: the span of the service is a child of `parent`. Where spans are exported, calls are part of the
/// trace that their caller is in without this.
pub(crate) fn in_trace<T>(request: &mut Request<T>, parent: TraceParent) {
    // Cannot fail: hex digits and hyphens.
    if let Ok(value) = parent.to_string().parse() {
        request.metadata_mut().insert(TraceParent::HEADER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_told_the_trace() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut request = Request::new(());

        in_trace(&mut request, TraceParent::parse(text).unwrap());

        assert_eq!(request.metadata().get("traceparent").unwrap(), text);
    }
}
