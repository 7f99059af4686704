//! What is added to the status at the end of an answer: the request id to each, and to one that is not OK what programs need
//! to act on it, if its service did not say so.

use http::HeaderMap;
use prost::Message as _;
use prost_types::Any;
use tidings_status::{Fields, code_name};
use tonic::{Code, Status};
use tonic_types::pb;

use super::request_id::{HEADER, RequestId};
use crate::{Reason, domain};

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";

/// Completes the trailers of a call of this path; returns the code that they have now.
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
    write(code, status.message(), details, trailers);
    Some(code)
}

/// The status comes from below our services: from the codec, the router, health or reflection.
fn complete_unexplained(
    status: &Status,
    mut details: Vec<Any>,
    trailers: &mut HeaderMap,
    path: &str,
    id: &RequestId,
) -> Code {
    let message = status.message();
    let (code, reason, message) = match explain(status.code(), message) {
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
    write(code, &message, details, trailers);
    code
}

/// What a status without a reason means. tonic answers OUT_OF_RANGE for size only, and INTERNAL where it can not make a
/// message out of what was sent; our services always give a reason.
fn explain(code: Code, message: &str) -> Option<Reason> {
    let unreadable = ["compression flag", "EOF", "Missing request message"];
    match code {
        Code::OutOfRange => Some(Reason::MessageTooLarge),
        Code::InvalidArgument => Some(Reason::Undecodable),
        Code::Internal if unreadable.iter().any(|sign| message.contains(sign)) => Some(Reason::Undecodable),
        Code::Unimplemented if message.contains("ompressed") => Some(Reason::UnsupportedEncoding),
        Code::Unimplemented => Some(Reason::UnknownMethod),
        Code::Internal | Code::Unknown | Code::DataLoss => Some(Reason::Internal),
        _ => None,
    }
}

/// The details of a status; `None` if they are no `google.rpc.Status` to add to.
fn details_of(status: &Status) -> Option<Vec<Any>> {
    match status.details() {
        [] => Some(Vec::new()),
        given => Some(pb::Status::decode(given).ok()?.details),
    }
}

fn request_info(id: &RequestId) -> Any {
    let info = pb::RequestInfo { request_id: id.as_str().to_owned(), serving_data: String::new() };
    Any { type_url: REQUEST_INFO.to_owned(), value: info.encode_to_vec() }
}

fn write(code: Code, message: &str, details: Vec<Any>, trailers: &mut HeaderMap) {
    let whole = pb::Status { code: code.into(), message: message.to_owned(), details }.encode_to_vec();
    // Cannot fail: the message came out of a header or is ours, and base64 always fits into one.
    let _ = Status::with_details(code, message, whole.into()).add_header(trailers);
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tidings_status::Failure;

    use super::*;

    const PATH: &str = "/tidings.user.v1.UserService/GetUser";

    /// What a caller hears of `status`, and the code that is counted.
    fn heard(status: &Status) -> (Failure, Code) {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let id = RequestId::of(&HeaderMap::from_iter([(HEADER, "order-42".parse().unwrap())]));
        let code = complete(&mut trailers, PATH, &id).unwrap();
        (Failure::from(&Status::from_header_map(&trailers).unwrap()), code)
    }

    #[test]
    fn every_status_that_is_not_ok_says_why_and_under_which_id_the_log_has_it() {
        for (given, code, reason) in [
            (Status::out_of_range("too large"), Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            (Status::invalid_argument("undecodable"), Code::InvalidArgument, "UNDECODABLE"),
            (Status::internal("protocol error: invalid compression flag: 5"), Code::InvalidArgument, "UNDECODABLE"),
            (Status::internal("Unexpected EOF decoding stream."), Code::InvalidArgument, "UNDECODABLE"),
            (Status::unimplemented(""), Code::Unimplemented, "UNKNOWN_METHOD"),
            (Status::unimplemented("Content is compressed with `br`"), Code::Unimplemented, "UNSUPPORTED_ENCODING"),
            (Status::unknown("a driver's words"), Code::Internal, "INTERNAL"),
            (Status::not_found("unknown service"), Code::NotFound, "NOT_FOUND"),
        ] {
            let (failure, counted) = heard(&given);

            assert_eq!((failure.code, counted, failure.reason.as_str()), (code, code, reason));
            assert_eq!((failure.domain.as_str(), failure.request_id.as_deref()), ("user.tidings", Some("order-42")));
        }
    }

    #[test]
    fn however_long_the_name_of_an_unknown_method_the_status_fits_the_headers_that_clients_accept() {
        let mut trailers = HeaderMap::new();
        Status::unimplemented("").add_header(&mut trailers).unwrap();

        complete(&mut trailers, &format!("/{}", "x".repeat(10_000)), &RequestId::of(&HeaderMap::new()));

        let bytes: usize = trailers.values().map(http::HeaderValue::len).sum();
        assert!(bytes < 2048, "{bytes}");
    }

    #[test]
    fn what_is_a_bug_is_not_told_in_the_words_of_a_driver() {
        assert_eq!(heard(&Status::unknown("a driver's words")).0.message, "internal error");
    }

    #[test]
    fn a_status_with_a_reason_keeps_it() {
        let given = Reason::Overloaded.reply(PATH, "too many calls").quota("calls").into_status();

        let (failure, _) = heard(&given);

        assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("OVERLOADED", "too many calls"));
        assert_eq!(failure.request_id.as_deref(), Some("order-42"));
    }
}
