//! The private Redis, without persistence unless a client calls SAVE.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::binaries::{self, SearchPath};
use crate::data_dir::DataDir;
use crate::error::Error;
use crate::options::Dir;
use crate::port;
use crate::server::{ChildServer, ServerCommand};

/// Timeout of one `PING` before the next.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// A Redis server on loopback.
#[derive(Debug)]
pub struct RedisServer {
    server: ChildServer,
    port: u16,
}

impl RedisServer {
    /// Starts a server without a Postgres beside it, in a temporary directory.
    ///
    /// # Errors
    ///
    /// See [`Error`] for the causes.
    pub async fn start_alone() -> Result<Self, Error> {
        Self::start_alone_with(&[]).await
    }

    /// Starts a server like [`start_alone`](Self::start_alone), with more arguments.
    ///
    /// # Errors
    ///
    /// See [`Error`] for the causes.
    pub async fn start_alone_with(options: &[&str]) -> Result<Self, Error> {
        let program = binaries::find_redis(&SearchPath::default())?;
        Self::launch(Arc::new(DataDir::acquire(&Dir::Temporary).await?), &program, options).await
    }

    pub(crate) async fn launch(data_dir: Arc<DataDir>, program: &Path, options: &[&str]) -> Result<Self, Error> {
        let port = port::free();
        let data = data_dir.create_data("redis")?;
        let mut arguments: Vec<_> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(Into::into).into();
        arguments.extend(["--maxmemory-policy", "noeviction"].map(Into::into));
        arguments.extend(["--port".into(), port.to_string().into(), "--dir".into(), data.into()]);
        arguments.extend(options.iter().map(Into::into));
        let command = ServerCommand { name: "redis", program: program.to_owned(), arguments, signals: "TERM" };
        let server = ChildServer::new(command, data_dir);
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

    /// Returns true if the server runs; a paused one does.
    pub fn running(&self) -> bool {
        self.server.running()
    }

    /// Starts the server, if it does not run, with the data it had saved. Waits until it is ready.
    pub async fn start(&self) -> Result<(), Error> {
        let port = self.port;
        let is_ready = || async move {
            let ping = tokio::task::spawn_blocking(move || ping(port));
            ping.await.is_ok_and(|pong| pong.unwrap_or(false))
        };
        self.server.start(is_ready).await
    }

    /// Kills the server, and waits until it has ended.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Shuts the server down, and waits until it has ended.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Suspends the server (SIGSTOP): connections stay open without responses.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Resumes a paused server (SIGCONT).
    pub fn resume(&self) {
        self.server.resume();
    }

    pub(crate) fn request_stop(&self) {
        self.server.request_stop();
    }
}

/// Returns true if the server replies with `PONG`. While it loads data, it replies with an error.
fn ping(port: u16) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PING_TIMEOUT)?;
    stream.set_read_timeout(Some(PING_TIMEOUT))?;
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)?;
    Ok(&reply == b"+PONG\r\n")
}
