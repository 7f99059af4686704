//! The private Redis: empty at its first start, forgetful unless told to save.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::binaries::Binaries;
use crate::place::Place;
use crate::server::{Recipe, Server};
use crate::{Error, port};

/// How long one `PING` may take before it is tried again.
const PING: Duration = Duration::from_millis(500);

/// A Redis server on loopback.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    pub(crate) async fn launch(place: Arc<Place>, binaries: &Binaries) -> Result<Self, Error> {
        let port = port::free();
        let data = place.make("redis")?;
        let mut arguments: Vec<_> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(Into::into).into();
        arguments.extend(["--maxmemory-policy", "noeviction"].map(Into::into));
        arguments.extend(["--port".into(), port.to_string().into(), "--dir".into(), data.into()]);
        let recipe = Recipe { name: "redis", program: binaries.redis.clone(), arguments, signals: "TERM" };
        let server = Server::new(recipe, place);
        let redis = Self { server, port };
        redis.start().await?;
        Ok(redis)
    }

    /// Returns the connection URL, e.g. `redis://127.0.0.1:20042`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the port, the same for the life of the stack.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id of the server, `None` if it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Reports whether the server runs; a paused one does.
    pub fn running(&self) -> bool {
        self.server.running()
    }

    /// Starts the server after its end, with what it had saved to disk; waits until it answers.
    ///
    /// Does nothing but wait if it runs.
    pub async fn start(&self) -> Result<(), Error> {
        let port = self.port;
        let answers = || async move {
            let ping = tokio::task::spawn_blocking(move || ping(port));
            ping.await.is_ok_and(|pong| pong.unwrap_or(false))
        };
        self.server.start(answers).await
    }

    /// Kills the server at once; returns when it is gone.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Asks the server to end, and waits until it has.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Stops the server where it is; connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.server.resume();
    }

    pub(crate) fn let_go(&self) {
        self.server.let_go();
    }
}

/// Asks for a `PONG`; a server that still loads its data answers otherwise.
fn ping(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PING)?;
    stream.set_read_timeout(Some(PING))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG\r\n")
}
