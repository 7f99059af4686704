//! Checks that a request is gRPC, and that its headers are of a legal size.

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use tonic::body::Body;

use crate::reason::Reason;

/// Maximum size of a request's header list in bytes: enough for tokens and trace context.
pub(crate) const HEADER_LIST_BYTES: usize = 16 << 10;
/// Size that each header counts in addition to its name and its value (RFC 9113, 6.5.2).
const HEADER_OVERHEAD: usize = 32;
/// Media type of gRPC.
const GRPC: &str = "application/grpc";

/// Checks a request. The response to a request that is not gRPC has the code 415, as the
/// specification of gRPC demands; a gRPC client reads its status as well.
///
/// # Errors
/// The response to an illegal request.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Box<Response<Body>>> {
    let path = request.uri().path();
    if !is_grpc(request) {
        let message = format!("unsupported content-type: this port serves gRPC, expected {GRPC}");
        let mut response = Reason::Undecodable.reply(path, message).into_status().into_http();
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Box::new(response));
    }
    let bytes = header_list_bytes(request);
    if bytes > HEADER_LIST_BYTES {
        let message = format!("headers too large: {bytes} bytes, at most {HEADER_LIST_BYTES}");
        return Err(Box::new(Reason::MessageTooLarge.reply(path, message).into_status().into_http()));
    }
    Ok(())
}

/// Returns true for `application/grpc`, alone or with a codec or parameters.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let rest = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(GRPC.as_bytes()));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn header_list_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let headers = request.headers().iter();
    target + headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use tidings_status::Failure;
    use tonic::{Code, Status};

    use super::*;

    const PATH: &str = "/tidings.user.v1.UserService/GetUser";

    /// Returns the HTTP code and the failure of a refused request.
    fn refused(kind: Option<&str>, header: &str) -> Option<(u16, Failure)> {
        let mut request = Request::post(PATH).header("x-header", header);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let response = check(&request.body(()).unwrap()).err()?;
        let status = Status::from_header_map(response.headers()).unwrap();
        Some((response.status().as_u16(), Failure::from(&status)))
    }

    #[test]
    fn a_request_with_another_content_type_gets_415() {
        for kind in [None, Some("text/html"), Some("application/json"), Some("application/grpc-web")] {
            let (code, failure) = refused(kind, "").unwrap();
            assert_eq!((code, failure.code, failure.reason.as_str()), (415, Code::InvalidArgument, "UNDECODABLE"));
        }
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(refused(Some(kind), "").is_none(), "{kind}");
        }
    }

    #[test]
    fn too_large_headers_are_refused_with_their_size() {
        assert!(refused(Some(GRPC), &"x".repeat(HEADER_LIST_BYTES - 200)).is_none());

        let (code, failure) = refused(Some(GRPC), &"x".repeat(HEADER_LIST_BYTES)).unwrap();

        assert_eq!((code, failure.code), (200, Code::ResourceExhausted));
        assert_eq!(failure.reason, "MESSAGE_TOO_LARGE");
        assert!(failure.message.contains("at most 16384"), "{}", failure.message);
    }
}
