//! Propagation of traces to the called service.

use tidings_trace::TraceParent;
use tonic::Request;

/// Sets the `traceparent` of a request, so that the service's span becomes a child of `parent`.
///
/// Calls of a traced task need no explicit parent: [`Endpoint::authorize`] passes the current
/// trace.
///
/// [`Endpoint::authorize`]: crate::Endpoint::authorize
pub(crate) fn in_trace<T>(request: &mut Request<T>, parent: TraceParent) {
    // Cannot fail: the text consists of hex digits and hyphens.
    if let Ok(value) = parent.to_string().parse() {
        request.metadata_mut().insert(TraceParent::HEADER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_carries_the_trace() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut request = Request::new(());

        in_trace(&mut request, TraceParent::parse(text).unwrap());

        assert_eq!(request.metadata().get("traceparent").unwrap(), text);
    }
}
