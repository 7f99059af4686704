//! Which of the served contracts a call is for.
//!
//! The part of a path that names it is looked up, and that is all. tonic's own router is axum's: it matches patterns of
//! which there are none here, and on its way puts a call, its body and its answer into a dozen boxes, which every frame of
//! a stream has to pass again.

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

/// What a generated service answers with.
pub(crate) type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The contracts that are served, and by what. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    contracts: Arc<[(&'static str, Arc<dyn Contract>)]>,
}

/// What serves a contract.
trait Contract: Send + Sync {
    fn answer(&self, request: Request<Body>) -> Answering;
}

impl<S> Contract for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering> + Clone + Send + Sync,
{
    fn answer(&self, request: Request<Body>) -> Answering {
        self.clone().call(request) // generated services are ready at any time
    }
}

impl Routes {
    /// Adds what serves a contract.
    ///
    /// # Panics
    /// If something serves it already.
    pub(crate) fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        assert!(self.of(S::NAME).is_none(), "{} is served already", S::NAME);
        let added: (_, Arc<dyn Contract>) = (S::NAME, Arc::new(service));
        self.contracts = self.contracts.iter().cloned().chain([added]).collect();
    }

    /// What serves the contract of this name. There are a handful: no table would find it sooner.
    fn of(&self, name: &str) -> Option<&dyn Contract> {
        self.contracts.iter().find(|(served, _)| *served == name).map(|(_, contract)| &**contract)
    }
}

/// The name of a contract in the path of a call, `/<contract>/<method>`.
fn contract(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(contract, _)| contract)
}

impl<B> Service<Request<B>> for Routes
where
    B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        match contract(request.uri().path()).and_then(|name| self.of(name)) {
            Some(contract) => contract.answer(request.map(Body::new)),
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
    use crate::Health;

    fn code(path: &str) -> Option<Code> {
        let mut routes = Routes::default();
        routes.add(Health::default().service());
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = futures_util::FutureExt::now_or_never(routes.call(request)).unwrap().unwrap();
        Status::from_header_map(answer.headers()).map(|status| status.code())
    }

    #[test]
    fn a_path_that_nobody_serves_is_unimplemented() {
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
            "it is served, and the request is no message"
        );
    }

    #[test]
    #[should_panic(expected = "grpc.health.v1.Health is served already")]
    fn a_contract_is_served_once() {
        let mut routes = Routes::default();
        routes.add(Health::default().service());
        routes.add(Health::default().service());
    }
}
