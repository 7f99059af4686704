//! What is added to the status at the end of an answer.

use http::HeaderMap;
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::request_id::{HEADER, RequestId};

/// Adds the request id to trailers, and to the error details if the status is not OK; returns its code.
pub(super) fn complete(trailers: &mut HeaderMap, id: &RequestId) -> Option<Code> {
    trailers.insert(HEADER, id.header());
    let code = Code::from_bytes(trailers.get(Status::GRPC_STATUS)?.as_bytes());
    if code != Code::Ok
        && let Some(status) = Status::from_header_map(trailers)
        && let Some(details) = with_request_info(&status, id)
    {
        // Cannot fail: the message came out of a header, and base64 always fits into one.
        let _ = Status::with_details(code, status.message(), details.into()).add_header(trailers);
    }
    Some(code)
}

/// The details of `status` with a `RequestInfo` more; `None` if they are no `google.rpc.Status` to add to.
fn with_request_info(status: &Status, id: &RequestId) -> Option<Vec<u8>> {
    let mut details = match status.details() {
        [] => pb::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() },
        given => pb::Status::decode(given).ok()?,
    };
    let info = pb::RequestInfo { request_id: id.as_str().to_owned(), serving_data: String::new() };
    details
        .details
        .push(Any { type_url: "type.googleapis.com/google.rpc.RequestInfo".to_owned(), value: info.encode_to_vec() });
    Some(details.encode_to_vec())
}
