//! The server: assembles the routes, and runs from the first accepted connection to the last cut.

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
use crate::args::Args;
use crate::connection::Connections;
use crate::health::Health;
use crate::routes::{ResponseFuture, Routes};
use crate::setting::InvalidSetting;
use crate::stack::{Methods, Stack};
use crate::{accept, admin, health, metrics};

/// Concurrent calls per connection: a bound on the responses that one stalled connection holds.
const MAX_STREAMS: u32 = 256;
/// Contracts that every server serves in addition to the added services.
const ALWAYS_SERVED: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Errors that prevent a server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor set given to [`Server::reflect`] cannot be decoded.
    #[error("malformed descriptor set")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The address of `--admin-listen` cannot be bound.
    #[error("cannot listen on {0} for metrics and probes (--admin-listen, TIDINGS_ADMIN_LISTEN)")]
    Admin(SocketAddr, #[source] io::Error),
    /// The certificates or the token list cannot be used.
    #[error(transparent)]
    Security(#[from] InvalidSetting),
}

/// The outcome of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Number of connections that had not ended within the drain time and were cut.
    pub cut: usize,
}

/// A gRPC server over HTTP/2: with TLS if it has a certificate, else with prior knowledge.
#[derive(Debug)]
pub struct Server {
    args: Args,
    max_streams: u32,
    health: Health,
    names: Vec<&'static str>,
    descriptor_sets: Vec<&'static [u8]>,
    methods: &'static [Method],
    routes: Routes,
}

impl Server {
    /// Creates a server that serves only health and reflection.
    pub fn new(args: &Args) -> Self {
        Self {
            args: args.clone(),
            max_streams: args.max_streams.unwrap_or(MAX_STREAMS),
            health: Health::default(),
            names: vec![Health::SERVER, Health::READINESS],
            // With the types of error details, clients print them in words.
            descriptor_sets: vec![health::DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET],
            methods: METHODS,
            routes: Routes::default(),
        }
    }

    /// Returns the handle through which the service reports its health.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Adds a generated service. Its health entry is SERVING from [`serve`](Self::serve) on, unless
    /// set before.
    ///
    /// # Panics
    ///
    /// If a service of the same name was added before.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "not an arithmetic addition")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture>
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

    /// Adds an encoded `FileDescriptorSet` to reflection (v1 and v1alpha).
    #[must_use]
    pub fn reflect(mut self, descriptor_set: &'static [u8]) -> Self {
        self.descriptor_sets.push(descriptor_set);
        self
    }

    /// Replaces the method table of our contracts. A method that is not in the table counts as a
    /// call in flight.
    #[must_use]
    pub fn methods(mut self, methods: &'static [Method]) -> Self {
        self.methods = methods;
        self
    }

    /// Sets the default limit of concurrent calls per connection, for a service with many long
    /// calls and small responses. The setting has precedence.
    #[must_use]
    pub fn default_max_streams(mut self, max: u32) -> Self {
        self.max_streams = self.args.max_streams.unwrap_or(max);
        self
    }

    /// Serves until `shutdown` is cancelled, then drains.
    ///
    /// Metrics and probes are served from the start. Connections are accepted unless the service
    /// has marked itself as starting ([`Health::mark_starting`]), then once it has started, or is
    /// known to wait for its dependency; calls fail with UNAVAILABLE while it waits.
    ///
    /// Shutdown: health reports NOT_SERVING; after the lame duck time, connections are refused,
    /// health watches end and GOAWAY is sent; calls in flight get the drain time to finish; then
    /// the remaining connections are cut. Returns within lame duck + drain + 1 s after `shutdown`,
    /// even if clients do not cooperate. Dropping the future cuts all connections at once.
    ///
    /// # Errors
    ///
    /// A malformed descriptor set, an admin address that cannot be bound, or certificates or tokens
    /// that cannot be used. No connection was accepted in these cases.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> Result<Drained, Error> {
        if self.args.admin_listen.is_some() {
            metrics::install_recorder(); // before the first measurement
        }
        self.add_reflection()?;
        self.routes.add(self.health.service());
        let security = self.args.security.open()?;
        let methods = Methods::new(self.methods, &self.names);
        let stack = Stack::new(self.routes.clone(), methods, security.tokens.clone(), &self.args);
        let connections = Connections::new(&self.args, self.max_streams, stack.clone(), security.tls.clone());
        let _admin = self.serve_admin(stack).await?;
        let _reloading = AbortOnDropHandle::new(tokio::spawn(security.watch(self.args.security.file_poll_interval)));
        self.health.register(&self.names);

        let accepting = async {
            self.health.past_starting().await;
            accept::run(listener, connections.slots(), |stream, slot| connections.spawn(stream, slot)).await;
        };
        let shutdown_begins = async {
            shutdown.cancelled().await;
            tracing::info!(lame_duck = %self.args.lame_duck, drain = %self.args.drain, "shutting down");
            if self.health.enter_lame_duck() {
                sleep(self.args.lame_duck.into()).await;
            }
        };
        // The first to end drops the other, and with it the listener: new connections are refused.
        tokio::select! {
            () = accepting => {}
            () = shutdown_begins => {}
        }

        self.health.end_watches();
        let cut = connections.drain(self.args.drain.into()).await;
        if cut > 0 {
            tracing::warn!(cut, "connections were cut after the drain time");
        }
        Ok(Drained { cut })
    }

    /// Serves the admin endpoints, if they have an address, until the handle is dropped.
    async fn serve_admin(&self, stack: Stack<Routes>) -> Result<Option<AbortOnDropHandle<()>>, Error> {
        let Some(address) = self.args.admin_listen else { return Ok(None) };
        let listener = admin::listen(address).await.map_err(|error| Error::Admin(address, error))?;
        let [calls, streams] = ["tidings_server_calls_in_flight", "tidings_server_streams"].map(|name| gauge!(name));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let update_gauges = Box::new(move || {
            let load = stack.load();
            calls.set(load.calls as f64);
            streams.set(load.streams as f64);
        });
        let admin = Admin { health: self.health.clone(), metrics: metrics::install_recorder(), update_gauges };
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(admin.serve(listener)))))
    }

    /// Adds reflection, which lists only the contracts served here, even if the descriptor sets
    /// contain more.
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
