//! TLS connections, each with the certificates that the files hold at that time.
//!
//! tonic's TLS settings are fixed for the life of a channel. A client whose certificate is rotated
//! could not reconnect after the first certificate expired.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tower::{BoxError, Service, service_fn};

use super::reloaded::Reloaded;

/// Share of the connect timeout for TCP, divided among the addresses of the name: one that does not
/// answer leaves time for the others, and all of them leave time for the TLS handshake.
const TCP_SHARE: f64 = 0.75;

/// Returns a channel that connects over TLS on its first call.
pub(super) fn lazy(endpoint: &Endpoint, tls: Arc<Reloaded<Arc<ClientConfig>>>) -> Channel {
    lazy_resolved(endpoint, tls, GaiResolver::new())
}

fn lazy_resolved<R>(endpoint: &Endpoint, tls: Arc<Reloaded<Arc<ClientConfig>>>, resolver: R) -> Channel
where
    R: Service<Name, Response: Iterator<Item = SocketAddr>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // The endpoint's connect timeout includes the TLS handshake.
    tcp.set_connect_timeout(endpoint.get_connect_timeout().map(|timeout| timeout.mul_f64(TCP_SHARE)));
    endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| connect(tcp.clone(), Arc::clone(&tls), uri)))
}

/// Returns a channel whose calls all fail, for `https://` without a CA.
pub(super) fn unusable(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(|_: Uri| {
        let error = io::Error::other("https requires a CA file in the credentials");
        std::future::ready(Err::<TokioIo<TcpStream>, _>(error))
    }))
}

async fn connect<C>(
    mut tcp: C,
    tls: Arc<Reloaded<Arc<ClientConfig>>>,
    uri: Uri,
) -> Result<TokioIo<TlsStream<TcpStream>>, BoxError>
where
    C: Service<Uri, Response = TokioIo<TcpStream>, Error: Into<BoxError>>,
{
    // An IPv6 address has brackets in a URI and none in a certificate.
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    std::future::poll_fn(|cx| tcp.poll_ready(cx)).await.map_err(Into::into)?;
    let stream = tcp.call(uri).await.map_err(Into::into)?.into_inner();
    Ok(TokioIo::new(TlsConnector::from(tls.get()).connect(name, stream).await?))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;
    use std::time::Duration;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tidings_proto::lock::GetLockRequest;
    use tidings_proto::lock::lock_service_client::LockServiceClient;
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig};
    use tonic::Code;

    use super::*;
    use crate::endpoints::settings;

    /// Starts a server over TLS that serves no method, and returns the configuration of a client
    /// that trusts it.
    fn serve_tls(listener: TcpListener) -> Arc<Reloaded<Arc<ClientConfig>>> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["tidings.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(ring::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut server = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        server.alpn_protocols.push(b"h2".to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (connected, connections) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let (near, mut far) = tokio::io::duplex(64 << 10); // tonic accepts no TLS stream
                let _ = connected.send(Ok::<_, io::Error>(near));
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
            }
        });
        let connections = tokio_stream::wrappers::UnboundedReceiverStream::new(connections);
        let routes = tonic::service::Routes::default();
        tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(connections));

        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols.push(b"h2".to_vec());
        let client = Arc::new(client);
        Arc::new(Reloaded::open("certificates", Vec::new(), move |_| Ok(Arc::clone(&client))).unwrap())
    }

    /// Listens at an address that answers no connection attempt: its queue is full.
    async fn black_hole(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (listener, queued)
    }

    #[tokio::test]
    async fn a_dead_address_of_a_name_leaves_time_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let tls = serve_tls(listener);
        let dead = SocketAddr::from(([127, 0, 0, 2], alive.port()));
        let _black_hole = black_hole(dead).await;
        let resolver = service_fn(move |_: Name| ready(Ok::<_, Infallible>(vec![dead, alive].into_iter())));
        let endpoint = settings(&format!("https://tidings.test:{}", alive.port()).parse().unwrap());

        let channel = lazy_resolved(&endpoint, tls, resolver);
        let response = LockServiceClient::new(channel).get_lock(GetLockRequest::default()).await;

        assert_eq!(response.unwrap_err().code(), Code::Unimplemented, "the service has answered");
    }
}
