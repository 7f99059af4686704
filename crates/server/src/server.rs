//! The server: assembly of the routes, and the order of its life from first accept to last cut.

use std::convert::Infallible;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tower::Service;

use crate::call::Calls;
use crate::connection::Connections;
use crate::security::Wrong;
use crate::{Args, Health, accept, health, metrics};

/// What every server serves besides what is added to it.
const ALWAYS_SERVED: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor set given to [`Server::reflect`] cannot be decoded.
    #[error("malformed descriptor set")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The address for metrics can not be bound.
    #[error("can not serve metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The certificates or the tokens can not be used.
    #[error(transparent)]
    Security(#[from] Wrong),
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not ended within the drain time and were cut.
    pub cut: usize,
}

/// A gRPC server over HTTP/2, within TLS if there is a certificate, else with prior knowledge.
#[derive(Debug)]
pub struct Server {
    args: Args,
    health: Health,
    names: Vec<&'static str>,
    descriptor_sets: Vec<&'static [u8]>,
    routes: RoutesBuilder,
}

impl Server {
    /// Creates a server that serves nothing yet but health and reflection.
    pub fn new(args: &Args) -> Self {
        Self {
            args: args.clone(),
            health: Health::default(),
            names: vec![Health::SERVER, Health::READINESS],
            descriptor_sets: vec![health::DESCRIPTOR_SET],
            routes: RoutesBuilder::default(),
        }
    }

    /// The handle by which the service reports its health.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Adds a generated service; its health entry is SERVING from [`serve`](Self::serve) on, unless set before.
    ///
    /// # Panics
    ///
    /// If a service of the same name was added before.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "nobody adds servers up")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` to what reflection (v1 and v1alpha) answers from.
    #[must_use]
    pub fn reflect(mut self, descriptor_set: &'static [u8]) -> Self {
        self.descriptor_sets.push(descriptor_set);
        self
    }

    /// Serves until `shutdown` is cancelled, then ends in order.
    ///
    /// Health says NOT_SERVING; after the lame duck time connections are refused, health watches end and GOAWAY is
    /// sent; calls in flight have the drain time to finish; then what remains is cut. Returns within lame duck + drain
    /// + 1 s after `shutdown`, whatever the clients do. Dropping the future cuts at once.
    ///
    /// # Errors
    ///
    /// A malformed descriptor set, no address for metrics, certificates or tokens that can not be used; no connection was accepted then.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> Result<Drained, Error> {
        if let Some(address) = self.args.admin_listen {
            metrics::expose(address)?;
        }
        self.add_reflection()?;
        self.routes.add_service(self.health.service());
        let security = self.args.security.open()?;
        let calls = Calls::new(self.routes.routes().prepare(), security.tokens.clone());
        let connections = Connections::new(&self.args, calls, security.tls.clone());
        let _watching = AbortOnDropHandle::new(tokio::spawn(security.watch(self.args.security.look)));
        self.health.open(&self.names);

        let accepting = accept::run(listener, connections.slots(), |stream, slot| connections.spawn(stream, slot));
        let retiring = async {
            shutdown.cancelled().await;
            tracing::info!(lame_duck = %self.args.lame_duck, drain = %self.args.drain, "shutting down");
            self.health.retire();
            sleep(self.args.lame_duck.into()).await;
        };
        // Whichever ends first drops the other, and with it the listener: new connections are refused.
        tokio::select! {
            () = accepting => {}
            () = retiring => {}
        }

        self.health.close();
        let cut = connections.drain(self.args.drain.into()).await;
        if cut > 0 {
            tracing::warn!(cut, "connections were cut after the drain time");
        }
        Ok(Drained { cut })
    }

    /// Reflection lists what is served here, whatever else the descriptor sets describe.
    fn add_reflection(&mut self) -> Result<(), Error> {
        let served = self.names.iter().filter(|name| name.contains('.')).chain(&ALWAYS_SERVED);
        let builder = || {
            let sets = self.descriptor_sets.iter();
            let builder = sets.fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            });
            served.clone().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
        self.routes.add_service(v1).add_service(v1alpha);
        Ok(())
    }
}
