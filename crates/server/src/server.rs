//! The server: assembly of the routes, and the order of its life from first accept to last cut.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use ::metrics::gauge;
use http::{Request, Response};
use tidings_proto::{METHODS, Method};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::admin::Admin;
use crate::connection::Connections;
use crate::routes::{Answering, Routes};
use crate::security::Wrong;
use crate::stack::{Methods, Stack};
use crate::{Args, Health, accept, admin, health, metrics};

/// What every server serves besides what is added to it.
const ALWAYS_SERVED: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor set given to [`Server::reflect`] cannot be decoded.
    #[error("malformed descriptor set")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The address of `--admin-listen` can not be bound.
    #[error("can not listen on {0} for metrics and probes (--admin-listen, TIDINGS_ADMIN_LISTEN)")]
    Admin(SocketAddr, #[source] io::Error),
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
    methods: &'static [Method],
    routes: Routes,
}

impl Server {
    /// Creates a server that serves nothing yet but health and reflection.
    pub fn new(args: &Args) -> Self {
        Self {
            args: args.clone(),
            health: Health::default(),
            names: vec![Health::SERVER, Health::READINESS],
            descriptor_sets: vec![health::DESCRIPTOR_SET],
            methods: METHODS,
            routes: Routes::default(),
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
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` to what reflection (v1 and v1alpha) answers from.
    #[must_use]
    pub fn reflect(mut self, descriptor_set: &'static [u8]) -> Self {
        self.descriptor_sets.push(descriptor_set);
        self
    }

    /// Replaces the method table, which is that of our contracts. A method without a line counts as a call in flight.
    #[must_use]
    pub fn methods(mut self, methods: &'static [Method]) -> Self {
        self.methods = methods;
        self
    }

    /// Serves until `shutdown` is cancelled, then ends in order.
    ///
    /// Metrics and probes are answered from the start; connections are accepted when it is known whether the service can begin
    /// (`Tasks::begin`), or has to wait, which its calls are told then.
    ///
    /// Health says NOT_SERVING; after the lame duck time connections are refused, health watches end and GOAWAY is
    /// sent; calls in flight have the drain time to finish; then what remains is cut. Returns within lame duck + drain
    /// + 1 s after `shutdown`, whatever the clients do. Dropping the future cuts at once.
    ///
    /// # Errors
    ///
    /// A malformed descriptor set, no address for metrics, certificates or tokens that can not be used; no connection was accepted then.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> Result<Drained, Error> {
        if self.args.admin_listen.is_some() {
            metrics::keep(); // before anything is counted
        }
        self.add_reflection()?;
        self.routes.add(self.health.service());
        let security = self.args.security.open()?;
        let methods = Methods::new(self.methods, &self.names);
        let stack = Stack::new(self.routes.clone(), methods, security.tokens.clone(), &self.args);
        let connections = Connections::new(&self.args, stack.clone(), security.tls.clone());
        let _answering = self.answer_admin(stack).await?;
        let _watching = AbortOnDropHandle::new(tokio::spawn(security.watch(self.args.security.look)));
        self.health.open(&self.names);

        let accepting = async {
            self.health.known().await;
            accept::run(listener, connections.slots(), |stream, slot| connections.spawn(stream, slot)).await;
        };
        let retiring = async {
            shutdown.cancelled().await;
            tracing::info!(lame_duck = %self.args.lame_duck, drain = %self.args.drain, "shutting down");
            if self.health.retire() {
                sleep(self.args.lame_duck.into()).await;
            }
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

    /// Answers Prometheus and Kubernetes, if an address is given, until the handle is dropped.
    async fn answer_admin(&self, stack: Stack<Routes>) -> Result<Option<AbortOnDropHandle<()>>, Error> {
        let Some(address) = self.args.admin_listen else { return Ok(None) };
        let listener = admin::listen(address).await.map_err(|error| Error::Admin(address, error))?;
        let [calls, streams] = ["tidings_server_calls_in_flight", "tidings_server_streams"].map(|name| gauge!(name));
        #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
        let measure = Box::new(move || {
            let load = stack.load();
            calls.set(load.calls as f64);
            streams.set(load.streams as f64);
        });
        let admin = Admin { health: self.health.clone(), numbers: metrics::keep(), measure };
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(admin.serve(listener)))))
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
        self.routes.add(v1);
        self.routes.add(v1alpha);
        Ok(())
    }
}
