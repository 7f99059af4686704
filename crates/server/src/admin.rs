//! Plain HTTP for Prometheus and Kubernetes: `/metrics`, `/livez`, `/readyz`.
//!
//! It has its own port, because these clients use neither TLS nor tokens. Connections that nothing
//! is asked on never keep a probe out: the oldest connection makes room for a new one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::health::Health;
use crate::{accept, metrics};

/// Maximum number of connections: enough for Prometheus, the kubelet and a few people. Another one
/// closes the oldest.
const CONNECTIONS_MAX: usize = 64;
/// Connections that may be accepted while closed ones have not ended yet.
const ACCEPTED_MAX: usize = 4 * CONNECTIONS_MAX;
/// Maximum lifetime of a connection, so that a stuck one does not keep its slot.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);
/// Longest wait for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that the admin endpoints report.
pub(crate) struct Admin {
    pub(crate) health: Health,
    pub(crate) metrics: Option<&'static PrometheusHandle>,
    /// Sets the gauges that are computed only when `/metrics` is read.
    pub(crate) update_gauges: Box<dyn Fn() + Send + Sync>,
}

impl Admin {
    /// Serves the admin endpoints; runs until dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let connections = Mutex::new(OpenConnections::default());
        let accepting = accept::run(listener, Arc::new(Semaphore::new(ACCEPTED_MAX)), |stream, slot| {
            let admin = Arc::clone(&admin);
            connections.lock().spawn(async move {
                // A client that disconnects is no error.
                let _ = timeout(CONNECTION_LIFETIME, admin.serve_connection(stream)).await;
                drop(slot);
            });
        });
        accepting.await;
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.respond(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(response) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        http.serve_connection(TokioIo::new(stream), service).await
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET\n".to_owned());
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => {
                let (ready, entries) = self.health.readiness();
                let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(code, entries)
            }
            "/metrics" => {
                (self.update_gauges)();
                let metrics = self.metrics.map(metrics::render).unwrap_or_default();
                text(StatusCode::OK, metrics)
            }
            _ => text(StatusCode::NOT_FOUND, "not found: the paths are /metrics, /livez and /readyz\n".to_owned()),
        }
    }
}

/// The tasks of the open connections, the oldest first.
#[derive(Default)]
struct OpenConnections {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
}

impl OpenConnections {
    /// Serves another connection, in place of the oldest if there are too many.
    fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.by_age.retain(|task| !task.is_finished());
        while self.by_age.len() >= CONNECTIONS_MAX {
            self.by_age.pop_front().inspect(AbortHandle::abort);
        }
        self.by_age.push_back(self.tasks.spawn(connection));
    }
}

fn text(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    // The version of the Prometheus text format.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Binds the address of the admin endpoints.
pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
