//! In-memory services over pipes instead of sockets.
//!
//! Tests therefore run in virtual time: an hour passes instantly, and timings are exact.

pub(crate) mod channels;
pub(crate) mod locks;

use std::io;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::service_fn;

use crate::address::Address;
use crate::endpoints::{Endpoint, Endpoints, settings};

/// Buffer of a pipe in bytes, as large as that of a socket.
const PIPE: usize = 64 * 1024;

/// One instance of a service and the connections to it.
#[derive(Clone, Debug)]
pub(crate) struct FakeInstance {
    address: Address,
    accept: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    connections: Arc<Mutex<PipeTable>>,
    frozen: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct PipeTable {
    down: bool,
    tasks: Vec<AbortHandle>,
}

impl FakeInstance {
    /// Starts an instance with the host name `name`.
    pub(crate) fn start(name: &str, services: Routes) -> Self {
        let (accept, accepted) = mpsc::unbounded_channel();
        let served = Server::builder().add_routes(services).serve_with_incoming(UnboundedReceiverStream::new(accepted));
        tokio::spawn(served);
        let address = format!("{name}:1").parse().unwrap();
        Self { address, accept, connections: Arc::default(), frozen: watch::Sender::new(false) }
    }

    /// Closes all connections and refuses new ones.
    pub(crate) fn kill(&self) {
        self.connections.lock().unwrap().down = true;
        self.cut();
    }

    /// Accepts connections again.
    pub(crate) fn restart(&self) {
        self.connections.lock().unwrap().down = false;
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        for task in self.connections.lock().unwrap().tasks.drain(..) {
            task.abort();
        }
    }

    /// Forwards nothing any more in either direction, and keeps all connections open.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    fn connect(&self) -> io::Result<TokioIo<DuplexStream>> {
        let mut connections = self.connections.lock().unwrap();
        if connections.down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let ((client, client_end), (server_end, server)) = (duplex(PIPE), duplex(PIPE));
        let ((from_client, to_client), (from_server, to_server)) = (split(client_end), split(server_end));
        let (request_freeze, response_freeze) = (self.frozen.subscribe(), self.frozen.subscribe());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = forward(from_client, to_server, request_freeze) => {}
                () = forward(from_server, to_client, response_freeze) => {}
            }
        });
        connections.tasks.push(task.abort_handle());
        let _ = self.accept.send(Ok(server));
        Ok(TokioIo::new(client))
    }
}

/// Forwards bytes until either side closes, and waits while frozen.
async fn forward(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, mut frozen: watch::Receiver<bool>) {
    let mut bytes = vec![0; PIPE];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Returns the endpoints of these instances of one service.
pub(crate) fn endpoints<'a>(instances: impl IntoIterator<Item = &'a FakeInstance>) -> Endpoints {
    Endpoints::of(instances.into_iter().map(|instance| {
        let target = instance.clone();
        let settings = settings(&instance.address);
        let connect = move || {
            let target = target.clone();
            settings.connect_with_connector_lazy(service_fn(move |_| std::future::ready(target.connect())))
        };
        Endpoint::new(instance.address.clone(), Box::new(connect))
    }))
}
