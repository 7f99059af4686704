//! Connections over TLS, each with the certificates as they are when it is made.
//!
//! Those of tonic are set once for all connections of a channel: a client whose certificate is rotated could not connect
//! any more once the first one has expired.

use std::io;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tower::{BoxError, Service as _, service_fn};

use super::fresh::Fresh;

/// A channel that is connected by its first call.
pub(super) fn lazy(endpoint: &Endpoint, tls: Arc<Fresh<Arc<ClientConfig>>>) -> Channel {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // The time for the connection, which the endpoint sets, holds for all of it.
    endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| connect(tcp.clone(), Arc::clone(&tls), uri)))
}

/// A channel that can not be connected.
pub(super) fn never(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(|_: Uri| {
        let error = io::Error::other("https needs credentials with the certificates of a CA");
        std::future::ready(Err::<TokioIo<TcpStream>, _>(error))
    }))
}

async fn connect(
    mut tcp: HttpConnector,
    tls: Arc<Fresh<Arc<ClientConfig>>>,
    uri: Uri,
) -> Result<TokioIo<TlsStream<TcpStream>>, BoxError> {
    // An IPv6 address stands in brackets in a URI, and without in a certificate.
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    std::future::poll_fn(|cx| tcp.poll_ready(cx)).await?;
    let stream = tcp.call(uri).await?.into_inner();
    Ok(TokioIo::new(TlsConnector::from(tls.get()).connect(name, stream).await?))
}
