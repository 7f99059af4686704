//! A running server and its clients.

pub(crate) mod pki;
pub(crate) mod probe_service;
pub(crate) mod raw_http2;

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_server::{Args, Drained, Health, Server};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use self::probe_service::ProbeService;
use self::raw_http2::RawHttp2;

/// Longest wait for an event that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The default settings without the lame duck time.
pub(crate) fn no_lame_duck() -> Args {
    Args { lame_duck: Duration::ZERO.into(), ..Args::default() }
}

/// A running server with one service, [`ProbeService`], on its own port.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    pub(crate) probe: ProbeService,
    pub(crate) shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(no_lame_duck()).await
    }

    pub(crate) async fn with(args: Args) -> Self {
        Self::serving(args, |server| server).await
    }

    /// Starts a server with more services.
    pub(crate) async fn serving(args: Args, more: impl FnOnce(Server) -> Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = ProbeService::default();
        let shutdown = CancellationToken::new();
        let server = more(Server::new(&args).methods(probe_service::METHODS).add(probe.clone()));
        let health = server.health();
        let serving = server.serve(listener, shutdown.clone());
        Self { address, health, probe, shutdown, server: tokio::spawn(async { serving.await.unwrap() }) }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn health_client(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel().await)
    }

    pub(crate) async fn raw(&self) -> RawHttp2 {
        RawHttp2::connect(self.address).await
    }

    /// Shuts the server down and waits until it has ended.
    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.server.await.unwrap()
    }
}

/// Calls a method with an empty request, such as `/test.v1.Probe/Answer`.
pub(crate) async fn call(channel: &Channel, path: &'static str) -> Result<Response<()>, Status> {
    call_as(channel, path, None).await
}

/// Like [`call`], with a request id from the caller.
pub(crate) async fn call_as(channel: &Channel, path: &'static str, id: Option<&str>) -> Result<Response<()>, Status> {
    let mut request = Request::new(());
    if let Some(id) = id {
        let id = id.parse().unwrap();
        request.metadata_mut().insert("x-request-id", id);
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    client.unary(request, path, ProstCodec::default()).await
}

/// Calls a method with a stream of empty responses, and reads the stream to its end.
pub(crate) async fn follow(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let response = client.server_streaming(Request::new(()), PathAndQuery::from_static(path), codec).await?;
    let mut messages = response.into_inner();
    while messages.message().await?.is_some() {}
    Ok(())
}
