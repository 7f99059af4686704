//! Plain HTTP for Prometheus and Kubernetes: `/metrics`, `/livez`, `/readyz`.
//!
//! On a port of its own, because whoever asks knows neither TLS nor tokens.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Health, accept, metrics};

/// Prometheus, the kubelet, and people: few.
const CONNECTIONS: usize = 64;
/// The longest that a connection lives: nobody needs one for long, and one that is stuck must not hold its place.
const LIFE: Duration = Duration::from_mins(1);
/// The longest wait for the head of a request.
const HEAD: Duration = Duration::from_secs(5);

/// What is answered from.
pub(crate) struct Admin {
    pub(crate) health: Health,
    pub(crate) numbers: Option<&'static PrometheusHandle>,
    /// Sets the gauges that are only looked at when somebody asks.
    pub(crate) measure: Box<dyn Fn() + Send + Sync>,
}

impl Admin {
    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let connections = std::sync::Mutex::new(JoinSet::new());
        let accepting = accept::run(listener, Arc::new(Semaphore::new(CONNECTIONS)), |stream, slot| {
            let admin = Arc::clone(&admin);
            let mut connections = connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                // A client that went away is nobody's problem.
                let _ = timeout(LIFE, admin.talk(stream)).await;
                drop(slot);
            });
        });
        accepting.await;
    }

    async fn talk(self: Arc<Self>, stream: TcpStream) -> hyper::Result<()> {
        let answer = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(answer) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        http.serve_connection(TokioIo::new(stream), answer).await
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => {
                let (ready, entries) = self.health.readiness();
                let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(code, entries)
            }
            "/metrics" => {
                (self.measure)();
                let numbers = self.numbers.map(metrics::text).unwrap_or_default();
                text(StatusCode::OK, numbers)
            }
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".to_owned()),
        }
    }
}

fn text(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    // The version is that of Prometheus' text format.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Binds the address.
pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
