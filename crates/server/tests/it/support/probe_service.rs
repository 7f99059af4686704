//! A service with one method for each behaviour that tests need: answer, wait, never end, fail.

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
use tidings_server::{DrainSignal, RequestId};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

/// An empty message in gRPC framing: not compressed, 0 bytes long.
const MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

#[derive(Clone, Debug)]
pub(crate) struct ProbeService {
    running: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Default for ProbeService {
    fn default() -> Self {
        Self { running: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl ProbeService {
    /// Returns the number of running calls of the methods that wait or stream.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Waits until this number of calls run.
    pub(crate) async fn runs(&self, calls: usize) {
        while self.running() != calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Completes all calls that wait, also future ones.
    pub(crate) fn release(&self) {
        self.gate.close();
    }

    async fn respond(self, request: Request<Body>) -> Response<Body> {
        match request.uri().path() {
            "/test.v1.Probe/Answer" => ok(),
            "/test.v1.Probe/Wait" | "/test.v1.Probe/Work" | "/test.v1.Probe/Short" => {
                let _running = RunningCall::new(&self.running);
                let _closed = self.gate.acquire().await;
                ok()
            }
            "/test.v1.Probe/Endless" | "/test.v1.Probe/Stream" => {
                let running = RunningCall::new(&self.running);
                grpc(Body::new(StreamBody::new(stream::once(never(running)))))
            }
            "/test.v1.Probe/Flood" => {
                let running = RunningCall::new(&self.running);
                grpc(Body::new(StreamBody::new(stream::repeat_with(move || flood(&running)))))
            }
            "/test.v1.Probe/HandlesDrain" => {
                let running = RunningCall::new(&self.running);
                let drain_signal = request.extensions().get::<DrainSignal>().unwrap().clone();
                grpc(Body::new(StreamBody::new(stream::once(end_on_drain(drain_signal, running)))))
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
                let mut response = ok();
                let seen = HeaderValue::from_str(id.as_str()).unwrap();
                response.headers_mut().insert("seen-id", seen);
                response
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

/// A part of a large message.
#[expect(clippy::unnecessary_wraps, reason = "the type of frames")]
fn flood(_running: &RunningCall) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from_static(&[0; 16 << 10])))
}

/// A message that never arrives.
async fn never(_running: RunningCall) -> Result<Frame<Bytes>, Infallible> {
    std::future::pending().await
}

#[expect(clippy::unused_async, reason = "a stream is made of futures")]
async fn bug() -> Result<Frame<Bytes>, Infallible> {
    panic!("a late bug")
}

/// Ends a stream with OK when the drain signal fires.
async fn end_on_drain(drain_signal: DrainSignal, _running: RunningCall) -> Result<Frame<Bytes>, Infallible> {
    drain_signal.reached().await;
    Ok(Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])))
}

/// Counts a call as long as its handler or its stream lives, however it ends.
struct RunningCall(Arc<AtomicUsize>);

impl RunningCall {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Request<Body>> for ProbeService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let probe = self.clone();
        Box::pin(async move { Ok(probe.respond(request).await) })
    }
}

impl NamedService for ProbeService {
    const NAME: &'static str = "test.v1.Probe";
}

/// The method table of the service. `Endless` is not in it.
pub(crate) const METHODS: &[Method] = &[
    method("test.v1.Probe/Answer", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Wait", Work::Waiting(Duration::from_mins(1))),
    method("test.v1.Probe/Work", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Short", Work::Brief(Duration::from_millis(100))),
    method("test.v1.Probe/Stream", Work::Stream),
    method("test.v1.Probe/Flood", Work::Stream),
    method("test.v1.Probe/HandlesDrain", Work::Stream),
    method("test.v1.Probe/Fail", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/FailLate", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/SeenId", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/Panic", Work::Brief(Duration::from_secs(5))),
    method("test.v1.Probe/PanicLate", Work::Stream),
];

const fn method(name: &'static str, work: Work) -> Method {
    Method { name, work, scope: Scope::Read, retry: Retry::Safe }
}
