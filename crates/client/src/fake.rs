//! Services in memory, over pipes instead of sockets, so that tests run in virtual time: an hour takes a moment, and what
//! happens when is exact.

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

/// What a pipe holds, as a socket would.
const PIPE: usize = 64 * 1024;

/// One instance of a service, with the wires to it.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    address: Address,
    accept: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    wires: Arc<Mutex<Wires>>,
    frozen: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Wires {
    down: bool,
    connected: Vec<AbortHandle>,
}

impl Instance {
    /// Starts to serve at `name`.
    pub(crate) fn start(name: &str, services: Routes) -> Self {
        let (accept, accepted) = mpsc::unbounded_channel();
        let served = Server::builder().add_routes(services).serve_with_incoming(UnboundedReceiverStream::new(accepted));
        tokio::spawn(served);
        let address = format!("{name}:1").parse().unwrap();
        Self { address, accept, wires: Arc::default(), frozen: watch::Sender::new(false) }
    }

    /// Cuts all connections and takes no new ones.
    pub(crate) fn kill(&self) {
        self.wires.lock().unwrap().down = true;
        self.cut();
    }

    /// Takes connections again.
    pub(crate) fn restart(&self) {
        self.wires.lock().unwrap().down = false;
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for wire in self.wires.lock().unwrap().connected.drain(..) {
            wire.abort();
        }
    }

    /// Lets nothing through any more, in either direction, and breaks nothing either.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    fn connect(&self) -> io::Result<TokioIo<DuplexStream>> {
        let mut wires = self.wires.lock().unwrap();
        if wires.down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let ((client, near), (far, server)) = (duplex(PIPE), duplex(PIPE));
        let ((from_client, to_client), (from_server, to_server)) = (split(near), split(far));
        let (there, back) = (self.frozen.subscribe(), self.frozen.subscribe());
        let wire = tokio::spawn(async move {
            tokio::select! {
                () = pump(from_client, to_server, there) => {}
                () = pump(from_server, to_client, back) => {}
            }
        });
        wires.connected.push(wire.abort_handle());
        let _ = self.accept.send(Ok(server));
        Ok(TokioIo::new(client))
    }
}

/// Carries bytes until either side ends.
async fn pump(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, mut frozen: watch::Receiver<bool>) {
    let mut bytes = vec![0; PIPE];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Connects to instances as to those of one service.
pub(crate) fn endpoints<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Endpoints {
    Endpoints::of(instances.into_iter().map(|instance| {
        let wired = instance.clone();
        let connector = service_fn(move |_| std::future::ready(wired.connect()));
        Endpoint::new(instance.address.clone(), settings(&instance.address).connect_with_connector_lazy(connector))
    }))
}
