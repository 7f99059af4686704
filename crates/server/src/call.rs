//! The outermost layer around every call: its request id, its span, its line in the log.

mod request_id;
mod trailers;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, Span};

pub use request_id::RequestId;

use crate::auth::Tokens;

/// Gives each call to `S` a [`RequestId`]: in the extensions of the request, in the span `rpc`, and in the answer. Answers
/// those that lack a token, if tokens are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Calls<S>(S, Option<Tokens>);

impl<S> Calls<S> {
    pub(crate) fn new(service: S, tokens: Option<Tokens>) -> Self {
        Self(service, tokens)
    }
}

impl<S, B> Service<Request<B>> for Calls<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let id = RequestId::of(request.headers());
        let mut call = Call::begin(request.uri().path(), id.clone());
        request.extensions_mut().insert(id);
        let path = request.uri().path();
        let admitted = self.1.as_ref().map_or(Ok(()), |tokens| tokens.admit(path, request.headers()));
        if let Err(refusal) = admitted {
            let (mut head, body) = refusal.reply(path).into_status().into_http::<Body>().into_parts();
            call.end(&mut head.headers);
            return Box::pin(async move { Ok(Response::from_parts(head, Answer { body, call })) });
        }
        let answering = self.0.call(request).instrument(call.span.clone());
        Box::pin(async move {
            let (mut head, body) = answering.await?.into_parts();
            // An answer without messages has no trailers, its status is among the headers.
            if head.headers.contains_key(Status::GRPC_STATUS) {
                call.end(&mut head.headers);
            }
            Ok(Response::from_parts(head, Answer { body, call }))
        })
    }
}

/// One call from its first byte to its last; writes its line when dropped, so every call has exactly one.
#[derive(Debug)]
struct Call {
    id: RequestId,
    span: Span,
    started: Instant,
    code: Option<Code>,
}

impl Call {
    fn begin(path: &str, id: RequestId) -> Self {
        let method = path.strip_prefix('/').unwrap_or(path);
        Self {
            span: tracing::info_span!("rpc", method, request_id = id.as_str()),
            started: Instant::now(),
            code: None,
            id,
        }
    }

    /// Takes note of the status and puts the request id next to it.
    fn end(&mut self, trailers: &mut HeaderMap) {
        self.code = trailers::complete(trailers, &self.id);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        tracing::debug!(
            parent: &self.span,
            // Absent if the caller went away first.
            code = self.code.map(tracing::field::debug),
            duration = ?self.started.elapsed(),
            "call ended"
        );
    }
}

/// The body of an answer, whose trailers carry the request id.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Body,
    call: Call,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, call } = &mut *self;
        let mut polled = call.span.in_scope(|| Pin::new(body).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            call.end(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
