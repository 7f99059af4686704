//! TLS connections, each with the certificates that the files hold at that time.
//!
//! tonic's TLS settings are fixed for the life of a channel. A client whose certificate is rotated
//! could not reconnect after the first certificate expired.

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

use super::reloaded::Reloaded;

/// Returns a channel that connects over TLS on its first call.
pub(super) fn lazy(endpoint: &Endpoint, tls: Arc<Reloaded<Arc<ClientConfig>>>) -> Channel {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // The endpoint's connect timeout includes the TLS handshake.
    endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| connect(tcp.clone(), Arc::clone(&tls), uri)))
}

/// Returns a channel whose calls all fail, for `https://` without a CA.
pub(super) fn unusable(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(|_: Uri| {
        let error = io::Error::other("https requires a CA file in the credentials");
        std::future::ready(Err::<TokioIo<TcpStream>, _>(error))
    }))
}

async fn connect(
    mut tcp: HttpConnector,
    tls: Arc<Reloaded<Arc<ClientConfig>>>,
    uri: Uri,
) -> Result<TokioIo<TlsStream<TcpStream>>, BoxError> {
    // An IPv6 address has brackets in a URI and none in a certificate.
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    std::future::poll_fn(|cx| tcp.poll_ready(cx)).await?;
    let stream = tcp.call(uri).await?.into_inner();
    Ok(TokioIo::new(TlsConnector::from(tls.get()).connect(name, stream).await?))
}
