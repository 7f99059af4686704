//! Completes the status at the end of a response: adds the request id, and an `ErrorInfo` to an
//! error that has none.

use http::HeaderMap;
use prost::Message as _;
use prost_types::Any;
use tidings_status::{Fields, code_name};
use tonic::{Code, Status};
use tonic_types::pb;

use super::request_id::{HEADER, RequestId};
use crate::reason::{Reason, domain};

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";

/// Completes the trailers of a call to this path, and returns their final code.
pub(super) fn complete(trailers: &mut HeaderMap, path: &str, id: &RequestId) -> Option<Code> {
    trailers.insert(HEADER, id.header());
    let code = Code::from_bytes(trailers.get(Status::GRPC_STATUS)?.as_bytes());
    if code == Code::Ok {
        return Some(code);
    }
    let Some(status) = Status::from_header_map(trailers) else { return Some(code) };
    let Some(mut details) = details_of(&status) else { return Some(code) };
    if !details.iter().any(|detail| detail.type_url == ERROR_INFO) {
        return Some(complete_unexplained(&status, details, trailers, path, id));
    }
    details.push(request_info(id));
    write_status(code, status.message(), details, trailers);
    Some(code)
}

/// Completes a status that did not come from our services, but from the codec, the router, health
/// or reflection.
fn complete_unexplained(
    status: &Status,
    mut details: Vec<Any>,
    trailers: &mut HeaderMap,
    path: &str,
    id: &RequestId,
) -> Code {
    let message = status.message();
    let (code, reason, message) = match reason_of(status.code(), message) {
        Some(Reason::Internal) => (Code::Internal, Reason::Internal.as_str(), "internal error".to_owned()),
        Some(Reason::UnknownMethod) => {
            let method = path.strip_prefix('/').unwrap_or(path);
            (
                Code::Unimplemented,
                Reason::UnknownMethod.as_str(),
                format!("{} is not served here", Fields::quoted(method)),
            )
        }
        Some(reason) => (reason.code(), reason.as_str(), message.to_owned()),
        None => (status.code(), code_name(status.code()), message.to_owned()),
    };
    let info = pb::ErrorInfo { reason: reason.to_owned(), domain: domain(path).to_owned(), ..pb::ErrorInfo::default() };
    details.push(Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() });
    details.push(request_info(id));
    write_status(code, &message, details, trailers);
    code
}

/// Maps a status without a reason to a [`Reason`]. tonic returns OUT_OF_RANGE for oversized
/// messages only, and INTERNAL for messages that it cannot decode; our services always set a
/// reason.
fn reason_of(code: Code, message: &str) -> Option<Reason> {
    let undecodable = ["compression flag", "EOF", "Missing request message"];
    match code {
        Code::OutOfRange => Some(Reason::MessageTooLarge),
        Code::InvalidArgument => Some(Reason::Undecodable),
        Code::Internal if undecodable.iter().any(|part| message.contains(part)) => Some(Reason::Undecodable),
        Code::Unimplemented if message.contains("ompressed") => Some(Reason::UnsupportedEncoding),
        Code::Unimplemented => Some(Reason::UnknownMethod),
        Code::Internal | Code::Unknown | Code::DataLoss => Some(Reason::Internal),
        _ => None,
    }
}

/// Decodes the details of a status; `None` if they are not a `google.rpc.Status`.
fn details_of(status: &Status) -> Option<Vec<Any>> {
    match status.details() {
        [] => Some(Vec::new()),
        existing => Some(pb::Status::decode(existing).ok()?.details),
    }
}

fn request_info(id: &RequestId) -> Any {
    let info = pb::RequestInfo { request_id: id.as_str().to_owned(), serving_data: String::new() };
    Any { type_url: REQUEST_INFO.to_owned(), value: info.encode_to_vec() }
}

fn write_status(code: Code, message: &str, details: Vec<Any>, trailers: &mut HeaderMap) {
    let encoded = pb::Status { code: code.into(), message: message.to_owned(), details }.encode_to_vec();
    // Cannot fail: the message came from a header or is ours, and base64 always fits into one.
    let _ = Status::with_details(code, message, encoded.into()).add_header(trailers);
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tidings_status::Failure;

    use super::*;

    const PATH: &str = "/tidings.user.v1.UserService/GetUser";

    /// Returns the failure that a caller sees, and the code that the metrics count.
    fn completed(status: &Status) -> (Failure, Code) {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let id = RequestId::of(&HeaderMap::from_iter([(HEADER, "order-42".parse().unwrap())]));
        let code = complete(&mut trailers, PATH, &id).unwrap();
        (Failure::from(&Status::from_header_map(&trailers).unwrap()), code)
    }

    #[test]
    fn every_error_has_a_reason_and_the_request_id() {
        for (status, code, reason) in [
            (Status::out_of_range("too large"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            (Status::invalid_argument("undecodable"), Code::InvalidArgument, "UNDECODABLE"),
            (Status::internal("protocol error: invalid compression flag: 5"), Code::InvalidArgument, "UNDECODABLE"),
            (Status::internal("Unexpected EOF decoding stream."), Code::InvalidArgument, "UNDECODABLE"),
            (Status::unimplemented(""), Code::Unimplemented, "UNKNOWN_METHOD"),
            (Status::unimplemented("Content is compressed with `br`"), Code::Unimplemented, "UNSUPPORTED_ENCODING"),
            (Status::unknown("a driver's words"), Code::Internal, "INTERNAL"),
            (Status::not_found("unknown service"), Code::NotFound, "NOT_FOUND"),
        ] {
            let (failure, counted) = completed(&status);

            assert_eq!((failure.code, counted, failure.reason.as_str()), (code, code, reason));
            assert_eq!((failure.domain.as_str(), failure.request_id.as_deref()), ("user.tidings", Some("order-42")));
        }
    }

    /// A long method name is truncated, so that the status fits the headers that clients accept.
    #[test]
    fn the_status_of_an_unknown_method_is_bounded_in_size() {
        let mut trailers = HeaderMap::new();
        Status::unimplemented("").add_header(&mut trailers).unwrap();

        complete(&mut trailers, &format!("/{}", "x".repeat(10_000)), &RequestId::of(&HeaderMap::new()));

        let bytes: usize = trailers.values().map(http::HeaderValue::len).sum();
        assert!(bytes < 2048, "{bytes}");
    }

    #[test]
    fn an_internal_error_does_not_show_the_text_of_a_driver() {
        assert_eq!(completed(&Status::unknown("a driver's words")).0.message, "internal error");
    }

    #[test]
    fn a_status_with_a_reason_keeps_it() {
        let status = Reason::Overloaded.reply(PATH, "too many calls").quota("calls").into_status();

        let (failure, _) = completed(&status);

        assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("OVERLOADED", "too many calls"));
        assert_eq!(failure.request_id.as_deref(), Some("order-42"));
    }
}
