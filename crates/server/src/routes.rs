//! Routes a call to the service of its contract, by the contract name in its path.
//!
//! tonic's router is axum's. It matches patterns, which gRPC paths do not need, and boxes a call,
//! its body and its response a dozen times; every frame of a stream passes these boxes again.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The future of a response, as generated services return it.
pub(crate) type ResponseFuture = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The served contracts and their services. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    contracts: Arc<[(&'static str, Arc<dyn ContractService>)]>,
}

/// A service behind a contract, object-safe.
trait ContractService: Send + Sync {
    fn handle(&self, request: Request<Body>) -> ResponseFuture;
}

impl<S> ContractService for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture>
        + Clone
        + Send
        + Sync,
{
    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        self.clone().call(request) // generated services are always ready
    }
}

impl Routes {
    /// Adds the service of a contract.
    ///
    /// # Panics
    /// If the contract already has a service.
    pub(crate) fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        assert!(self.find(S::NAME).is_none(), "contract {} already has a service", S::NAME);
        let added: (_, Arc<dyn ContractService>) = (S::NAME, Arc::new(service));
        self.contracts = self.contracts.iter().cloned().chain([added]).collect();
    }

    /// Finds the service of a contract. A linear search is fastest: there are a handful.
    fn find(&self, name: &str) -> Option<&dyn ContractService> {
        self.contracts.iter().find(|(served, _)| *served == name).map(|(_, service)| &**service)
    }
}

/// Returns the contract name in a path `/<contract>/<method>`.
fn contract_name(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(contract, _)| contract)
}

impl<B> Service<Request<B>> for Routes
where
    B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        match contract_name(request.uri().path()).and_then(|name| self.find(name)) {
            Some(service) => service.handle(request.map(Body::new)),
            None => Box::pin(async { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.contracts.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::health::Health;

    fn code(path: &str) -> Option<Code> {
        let mut routes = Routes::default();
        routes.add(Health::default().service());
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = futures_util::FutureExt::now_or_never(routes.call(request)).unwrap().unwrap();
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    #[test]
    fn an_unknown_path_is_unimplemented() {
        for path in [
            "/",
            "/x",
            "/grpc.health.v1.Health",
            "//Check",
            "/grpc.health.v1.Healt/Check",
            "/a/grpc.health.v1.Health/Check",
        ] {
            assert_eq!(code(path), Some(Code::Unimplemented), "{path}");
        }
        assert_eq!(code("/grpc.health.v1.Health/NoSuchMethod"), Some(Code::Unimplemented));
        assert_eq!(
            code("/grpc.health.v1.Health/Check"),
            Some(Code::Internal),
            "the route exists; the empty body is no message"
        );
    }

    #[test]
    #[should_panic(expected = "contract grpc.health.v1.Health already has a service")]
    fn a_second_service_of_a_contract_panics() {
        let mut routes = Routes::default();
        routes.add(Health::default().service());
        routes.add(Health::default().service());
    }
}
