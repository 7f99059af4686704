//! A service that does what a test wants: answers, waits, never ends, fails.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tidings_proto::{Method, Retry, Scope, Work};
use tidings_server::{Ending, RequestId};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

/// An empty message as it goes over the wire: not compressed, 0 bytes long.
const MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    running: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { running: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl Probe {
    /// Calls of `Wait` and `Endless` that run right now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Waits until so many of them run.
    pub(crate) async fn runs(&self, calls: usize) {
        while self.running() != calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets every call of `Wait` answer, those to come as well.
    pub(crate) fn release(&self) {
        self.gate.close();
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        match request.uri().path() {
            "/test.v1.Probe/Answer" => ok(),
            "/test.v1.Probe/Wait" | "/test.v1.Probe/Work" | "/test.v1.Probe/Short" => {
                let _running = Running::new(&self.running);
                let _closed = self.gate.acquire().await;
                ok()
            }
            "/test.v1.Probe/Endless" | "/test.v1.Probe/Stream" => {
                let running = Running::new(&self.running);
                grpc(Body::new(StreamBody::new(stream::once(silence(running)))))
            }
            "/test.v1.Probe/Polite" => {
                let running = Running::new(&self.running);
                let ending = request.extensions().get::<Ending>().unwrap().clone();
                grpc(Body::new(StreamBody::new(stream::once(goodbye(ending, running)))))
            }
            "/test.v1.Probe/Panic" => panic!("a bug"),
            "/test.v1.Probe/PanicLate" => grpc(Body::new(StreamBody::new(stream::once(bug())))),
            "/test.v1.Probe/Fail" => {
                let details = ErrorDetails::with_error_info("ABSENT", "probe.tidings", []);
                Status::with_error_details(Code::NotFound, "no such thing: 100 %", details).into_http()
            }
            "/test.v1.Probe/FailLate" => ended_with("8"),
            "/test.v1.Probe/SeenId" => {
                let id = request.extensions().get::<RequestId>().unwrap();
                let mut answer = ok();
                let seen = HeaderValue::from_str(id.as_str()).unwrap();
                answer.headers_mut().insert("seen-id", seen);
                answer
            }
            _ => Status::unimplemented("").into_http(),
        }
    }
}

fn ok() -> Response<Body> {
    ended_with("0")
}

fn ended_with(code: &'static str) -> Response<Body> {
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static(code))]);
    let body = Full::new(MESSAGE).with_trailers(async { Some(Ok(trailers)) });
    grpc(Body::new(body))
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// A message that never comes.
async fn silence(_running: Running) -> Result<Frame<Bytes>, Infallible> {
    std::future::pending().await
}

#[expect(clippy::unused_async, reason = "a stream is made of futures")]
async fn bug() -> Result<Frame<Bytes>, Infallible> {
    panic!("a late bug")
}

/// The end of a stream as its service says it.
async fn goodbye(ending: Ending, _running: Running) -> Result<Frame<Bytes>, Infallible> {
    ending.reached().await;
    Ok(Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])))
}

/// Counts a call for as long as its handler or its stream lives, however it ends.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let probe = self.clone();
        Box::pin(async move { Ok(probe.answer(request).await) })
    }
}

impl NamedService for Probe {
    const NAME: &'static str = "test.v1.Probe";
}

/// The table of its methods. `Endless` has no line.
pub(crate) const METHODS: &[Method] = &[
    method("test.v1.Probe/Answer", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Wait", Work::Waiting(Duration::from_mins(1))),
    method("test.v1.Probe/Work", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Short", Work::Brief(Duration::from_millis(100))),
    method("test.v1.Probe/Stream", Work::Stream),
    method("test.v1.Probe/Polite", Work::Stream),
    method("test.v1.Probe/Fail", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/FailLate", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/SeenId", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Panic", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/PanicLate", Work::Stream),
];

const fn method(name: &'static str, work: Work) -> Method {
    Method { name, work, scope: Scope::Read, retry: Retry::Safe }
}
