//! The steps that every call and its response pass, in this order: request id, span, metrics,
//! panics, protocol, authentication, limits, deadline, service.
//!
//! Health and reflection skip authentication and limits, so that any client that can connect may
//! check the server, even an overloaded one.

mod call_record;
mod chunks;
mod deadline;
mod limits;
mod methods;
mod panic;
mod protocol;
mod request_body;
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
use self::methods::{CallKind, MethodEntry};
use self::panic::HandlerPanicked;
use self::request_body::RequestBody;
use self::response_body::{ResponseBody, StreamGuard};
use crate::args::Args;
use crate::auth::{CallerToken, Tokens};
use crate::connection_state::ConnectionState;
use crate::drain_signal::DrainSignal;
use crate::send_timeout;

pub(crate) use self::limits::CurrentLoad;
pub(crate) use self::methods::Methods;
pub(crate) use self::protocol::HEADER_LIST_BYTES;

/// The stack around the service `S`, for the calls of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Stack<S> {
    service: S,
    shared: Arc<StackContext>,
    connection: Arc<ConnectionState>,
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
    /// Token of the caller, if one is required.
    token: Option<CallerToken>,
}

impl<S> Stack<S> {
    pub(crate) fn new(service: S, methods: Methods, tokens: Option<Tokens>, args: &Args) -> Self {
        let shared = StackContext { methods, tokens, limits: CallLimits::new(args) };
        Self { service, shared: Arc::new(shared), connection: ConnectionState::new(u32::MAX) }
    }

    /// Returns the stack of one connection, whose streams and waiting calls end when the connection
    /// drains.
    pub(crate) fn of_connection(&self, connection: Arc<ConnectionState>) -> Self
    where
        S: Clone,
    {
        Self { connection, ..self.clone() }
    }

    /// Returns the current numbers of calls and streams.
    pub(crate) fn load(&self) -> CurrentLoad {
        self.shared.limits.load()
    }
}

impl StackContext {
    /// Admits a call or refuses it: protocol, authentication, limits, deadline.
    fn admit<B>(
        &self,
        entry: &MethodEntry,
        request: &Request<B>,
        connection: &ConnectionState,
    ) -> Result<AdmittedCall, Box<Response<Body>>> {
        protocol::check(request)?;
        self.admit_grpc(entry, request, connection).map_err(|status| Box::new(status.into_http()))
    }

    fn admit_grpc<B>(
        &self,
        entry: &MethodEntry,
        request: &Request<B>,
        connection: &ConnectionState,
    ) -> Result<AdmittedCall, Status> {
        let path = request.uri().path();
        let mut token = None;
        if let (Some(tokens), false) = (&self.tokens, entry.kind.is_public()) {
            let checked = tokens.check(request.headers(), entry.method);
            token = Some(checked.map_err(|error| error.reply(path).into_status())?);
        }
        let permit = self.limits.take(entry.kind, connection).map_err(|limit| limit.reply(path).into_status())?;
        let deadline = deadline::of(request.headers(), entry.cap)
            .map_err(|MalformedTimeout| MalformedTimeout::reply(path).into_status())?;
        Ok(AdmittedCall { permit, deadline, token })
    }
}

impl<S, B> Service<Request<B>> for Stack<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
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
        let connection = Arc::clone(&self.connection);
        let record = CallRecord::begin(Arc::clone(&entry), &request, id.clone(), Arc::clone(&connection));
        let AdmittedCall { permit, deadline, token } = match self.shared.admit(&entry, &request, &connection) {
            Ok(admitted) => admitted,
            Err(response) => {
                let refused = ResponseBody::begin(*response, record, None);
                return Box::pin(async { Ok(refused) });
            }
        };

        let drain_signal = DrainSignal::of(&connection.drain);
        request.extensions_mut().insert(id);
        if let Some(trace) = record.trace {
            request.extensions_mut().insert(trace);
        }
        if let Some(token) = token {
            request.extensions_mut().insert(token);
        }
        request.extensions_mut().insert(drain_signal.clone());
        request.extensions_mut().insert(connection.long_calls.clone());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let handling = self.service.call(request.map(|body| RequestBody::new(body, connection)));
        Box::pin(async move {
            let response = panic::catch(&record.path, handling).instrument(record.span.clone());
            let response = until_drain(response, entry.kind, &drain_signal, &record.path);
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
                send_timeout::part_sent();
            }
            Ok(ResponseBody::begin(response, record, stream_guard))
        })
    }
}

/// Waits for the response to a call. A waiting call ends with DRAINING before its connection is
/// cut.
async fn until_drain<F: Future<Output = Result<Response<Body>, HandlerPanicked>>>(
    response: F,
    kind: CallKind,
    drain_signal: &DrainSignal,
    path: &str,
) -> F::Output {
    if kind != CallKind::Waiting {
        return response.await;
    }
    tokio::select! {
        biased; // a response that is ready wins
        response = response => response,
        cause = drain_signal.clone().overdue() => Ok(cause.status(path).into_http()),
    }
}
