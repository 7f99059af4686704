//! What every call passes on its way in, and every answer on its way out, in this order: request id, span, numbers, panics,
//! authentication, limits, deadline, service.
//!
//! Health and reflection pass neither authentication nor limits: whoever can connect may ask whether it works, also when
//! nothing else does.

mod answer;
mod deadline;
mod limits;
mod methods;
mod panic;
mod pieces;
mod record;
mod request_id;
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

use self::answer::{Answer, Leash};
use self::deadline::Malformed;
use self::limits::{Limits, Permit};
use self::methods::Entry;
use self::panic::Panicked;
use self::record::Record;
use crate::auth::Tokens;
use crate::ending::{Closing, Ending};
use crate::{Args, Reason, sending};

pub(crate) use self::limits::Load;
pub(crate) use self::methods::Methods;

/// The stack around `S`, for the calls of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Stack<S> {
    service: S,
    shared: Arc<Shared>,
    closing: Arc<Closing>,
}

/// What is the same for all connections.
#[derive(Debug)]
struct Shared {
    methods: Methods,
    tokens: Option<Tokens>,
    limits: Limits,
}

/// What a call has been given to go on.
struct Admitted {
    permit: Permit,
    deadline: Option<Deadline>,
}

impl<S> Stack<S> {
    pub(crate) fn new(service: S, methods: Methods, tokens: Option<Tokens>, args: &Args) -> Self {
        let shared = Shared { methods, tokens, limits: Limits::new(args) };
        Self { service, shared: Arc::new(shared), closing: Arc::default() }
    }

    /// The stack of one connection, whose streams end when `closing` begins.
    pub(crate) fn of_connection(&self, closing: Arc<Closing>) -> Self
    where
        S: Clone,
    {
        Self { closing, ..self.clone() }
    }

    /// How much it does right now.
    pub(crate) fn load(&self) -> Load {
        self.shared.limits.load()
    }
}

impl Shared {
    /// Whether a call may go on: authentication, limits, deadline.
    fn admit<B>(&self, entry: &Entry, request: &Request<B>) -> Result<Admitted, Status> {
        let path = request.uri().path();
        if let (Some(tokens), false) = (&self.tokens, entry.kind.is_open()) {
            tokens.check(request.headers(), entry.method).map_err(|refusal| refusal.reply(path).into_status())?;
        }
        let permit = self.limits.take(entry.kind).map_err(|full| full.reply(path).into_status())?;
        let deadline =
            deadline::of(request.headers(), entry.cap).map_err(|Malformed| Malformed::reply(path).into_status())?;
        Ok(Admitted { permit, deadline })
    }
}

impl<S, B> Service<Request<B>> for Stack<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let id = RequestId::of(request.headers());
        let entry = self.shared.methods.of(request.uri().path());
        let record = Record::begin(Arc::clone(&entry), request.uri().path(), request.headers(), id.clone());
        let Admitted { permit, deadline } = match self.shared.admit(&entry, &request) {
            Ok(admitted) => admitted,
            Err(status) => {
                let refused = Answer::begin(status.into_http(), record, None);
                return Box::pin(async { Ok(refused) });
            }
        };

        let ending = Ending::of(&self.closing);
        request.extensions_mut().insert(id);
        if let Some(trace) = record.trace {
            request.extensions_mut().insert(trace);
        }
        request.extensions_mut().insert(ending.clone());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let working = self.service.call(request);
        Box::pin(async move {
            let answering = panic::caught(&record.path, working).instrument(record.span.clone());
            let answered = match deadline {
                Some(deadline) => timeout_at(deadline.at(), answering).await.unwrap_or_else(|_| Ok(late(&record))),
                None => answering.await,
            };
            let response = answered.unwrap_or_else(|Panicked| Panicked::status(&record.path).into_http());
            let leash = entry.kind.is_stream().then(|| Leash::new(permit, deadline, ending));
            if leash.is_none() {
                sending::begins();
            }
            Ok(Answer::begin(response, record, leash))
        })
    }
}

/// The answer to a call that was not answered in time.
fn late(record: &Record) -> Response<Body> {
    late_status(&record.path).into_http()
}

fn late_status(path: &str) -> Status {
    Reason::DeadlineExceeded.reply(path, "the call was not answered in time").into_status()
}
