//! The steps that every call and its response pass, in this order: request id, span, metrics,
//! panics, authentication, limits, deadline, service.
//!
//! Health and reflection skip authentication and limits, so that any client that can connect may
//! check the server, even an overloaded one.

mod call_record;
mod chunks;
mod deadline;
mod limits;
mod methods;
mod panic;
mod request_id;
mod response_body;
mod trace;
mod trailers;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::time::timeout_at;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;

pub use self::deadline::Deadline;
pub use self::request_id::RequestId;
pub use self::trace::trace_parent;

use self::call_record::CallRecord;
use self::deadline::MalformedTimeout;
use self::limits::{CallLimits, Permit};
use self::methods::MethodEntry;
use self::panic::HandlerPanicked;
use self::response_body::{ResponseBody, StreamGuard};
use crate::args::Args;
use crate::auth::Tokens;
use crate::drain_signal::{ConnectionDrain, DrainSignal};
use crate::send_timeout;

pub(crate) use self::limits::CurrentLoad;
pub(crate) use self::methods::Methods;

/// The stack around the service `S`, for the calls of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Stack<S> {
    service: S,
    shared: Arc<StackContext>,
    connection_drain: Arc<ConnectionDrain>,
}

/// The parts of the stack that all connections share.
#[derive(Debug)]
struct StackContext {
    methods: Methods,
    tokens: Option<Tokens>,
    limits: CallLimits,
}

/// The permit and the deadline of an admitted call.
struct AdmittedCall {
    permit: Permit,
    deadline: Option<Deadline>,
}

impl<S> Stack<S> {
    pub(crate) fn new(service: S, methods: Methods, tokens: Option<Tokens>, args: &Args) -> Self {
        let shared = StackContext { methods, tokens, limits: CallLimits::new(args) };
        Self { service, shared: Arc::new(shared), connection_drain: Arc::default() }
    }

    /// Returns the stack of one connection, whose streams end when the connection drains.
    pub(crate) fn of_connection(&self, connection_drain: Arc<ConnectionDrain>) -> Self
    where
        S: Clone,
    {
        Self { connection_drain, ..self.clone() }
    }

    /// Returns the current numbers of calls and streams.
    pub(crate) fn load(&self) -> CurrentLoad {
        self.shared.limits.load()
    }
}

impl StackContext {
    /// Admits a call or refuses it: authentication, limits, deadline.
    fn admit<B>(&self, entry: &MethodEntry, request: &Request<B>) -> Result<AdmittedCall, Status> {
        let path = request.uri().path();
        if let (Some(tokens), false) = (&self.tokens, entry.kind.is_public()) {
            tokens.check(request.headers(), entry.method).map_err(|error| error.reply(path).into_status())?;
        }
        let permit = self.limits.take(entry.kind).map_err(|limit| limit.reply(path).into_status())?;
        let deadline = deadline::of(request.headers(), entry.cap)
            .map_err(|MalformedTimeout| MalformedTimeout::reply(path).into_status())?;
        Ok(AdmittedCall { permit, deadline })
    }
}

impl<S, B> Service<Request<B>> for Stack<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let id = RequestId::of(request.headers());
        let entry = self.shared.methods.of(request.uri().path());
        let record = CallRecord::begin(Arc::clone(&entry), request.uri().path(), request.headers(), id.clone());
        let AdmittedCall { permit, deadline } = match self.shared.admit(&entry, &request) {
            Ok(admitted) => admitted,
            Err(status) => {
                let refused = ResponseBody::begin(status.into_http(), record, None);
                return Box::pin(async { Ok(refused) });
            }
        };

        let drain_signal = DrainSignal::of(&self.connection_drain);
        request.extensions_mut().insert(id);
        if let Some(trace) = record.trace {
            request.extensions_mut().insert(trace);
        }
        request.extensions_mut().insert(drain_signal.clone());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let handling = self.service.call(request);
        Box::pin(async move {
            let response = panic::catch(&record.path, handling).instrument(record.span.clone());
            let result = match deadline {
                Some(deadline) => {
                    let exceeded = || deadline::exceeded(&record.path).into_http();
                    timeout_at(deadline.at(), response).await.unwrap_or_else(|_| Ok(exceeded()))
                }
                None => response.await,
            };
            let response = result.unwrap_or_else(|HandlerPanicked| HandlerPanicked::status(&record.path).into_http());
            let stream_guard = entry.kind.is_stream().then(|| StreamGuard::new(permit, deadline, drain_signal));
            if stream_guard.is_none() {
                send_timeout::response_ready();
            }
            Ok(ResponseBody::begin(response, record, stream_guard))
        })
    }
}
