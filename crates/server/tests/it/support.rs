//! A running server, and clients to talk to it.

pub(crate) mod pki;
pub(crate) mod probe;
pub(crate) mod raw;

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

use self::probe::Probe;
use self::raw::Raw;

/// Longest wait for anything that shall happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The defaults, but for the time in which a load balancer would hear of the end.
pub(crate) fn quick() -> Args {
    Args { lame_duck: Duration::ZERO.into(), ..Args::default() }
}

/// A server with one service, [`Probe`], on a port of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    pub(crate) probe: Probe,
    pub(crate) shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(quick()).await
    }

    pub(crate) async fn with(args: Args) -> Self {
        Self::serving(args, |server| server).await
    }

    /// A server with more than the probe.
    pub(crate) async fn serving(args: Args, more: impl FnOnce(Server) -> Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = Probe::default();
        let shutdown = CancellationToken::new();
        let server = more(Server::new(&args).methods(probe::METHODS).add(probe.clone()));
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

    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(self) -> Drained {
        self.shutdown.cancel();
        self.server.await.unwrap()
    }
}

/// Calls a method without a message; `/test.v1.Probe/Answer` and its kin.
pub(crate) async fn call(channel: &Channel, path: &'static str) -> Result<Response<()>, Status> {
    call_as(channel, path, None).await
}

/// Like [`call`], with a request id of the caller.
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

/// Calls a method that answers with a stream of empty messages, and reads it to its end.
pub(crate) async fn follow(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let answer = client.server_streaming(Request::new(()), PathAndQuery::from_static(path), codec).await?;
    let mut messages = answer.into_inner();
    while messages.message().await?.is_some() {}
    Ok(())
}
