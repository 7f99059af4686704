//! Core NATS, called in its text protocol.

use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tidings_load::{BenchCall, CallFailure, Fanout};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::plan::{CALLERS, SUBSCRIBERS};
use crate::process::{ChildProcess, PeerPrograms, free_port, wait_for_port};

const CONNECTIONS: usize = 4;
/// First line of a client, without acknowledgements of each command.
const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\"}\r\n";

/// A NATS server.
pub(crate) struct Nats {
    port: u16,
    _process: ChildProcess,
}

impl Nats {
    /// Starts a server; returns `None` if NATS is not available.
    pub(crate) async fn start(programs: &PeerPrograms) -> Option<Self> {
        let port = free_port();
        let process = Command::new(programs.nats.as_ref()?)
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = ChildProcess(process.unwrap());
        wait_for_port(port).await;
        Some(Self { port, _process: process })
    }

    async fn connect(&self) -> TcpStream {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        connection.set_nodelay(true).unwrap();
        connection.write_all(CONNECT).await.unwrap();
        connection
    }

    /// Returns a call that publishes a message and waits until every subscriber has it. The
    /// subscribers share a connection, like those of Tidings.
    pub(crate) async fn fanout(&self) -> BenchCall {
        let fanout = Arc::new(Fanout::new(CALLERS, SUBSCRIBERS));
        let mut connection = self.connect().await;
        for number in 1..=SUBSCRIBERS {
            connection.write_all(format!("SUB channel {number}\r\n").as_bytes()).await.unwrap();
        }
        connection.write_all(b"PING\r\n").await.unwrap();
        let mut reader = BufReader::new(connection);
        while line(&mut reader).await.unwrap() != "PONG" {}
        tokio::spawn(receive(reader, Arc::clone(&fanout)));

        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut reader, writer) = self.connect().await.into_split();
            // Reads and discards what the server sends, e.g. its INFO.
            tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
            connections.push(Arc::new(Mutex::new(writer)));
        }
        Arc::new(move |slot| {
            let (fanout, connection) = (Arc::clone(&fanout), Arc::clone(&connections[slot.caller % CONNECTIONS]));
            Box::pin(async move {
                let publish = |data: Vec<u8>| async move {
                    let frame = [format!("PUB channel {}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat();
                    let written = connection.lock().await.write_all(&frame).await;
                    written.map_err(|error| CallFailure::unexpected(error.to_string()))
                };
                fanout.deliver(slot, vec![b'x'; 100], publish).await.map(|_| 1)
            })
        })
    }
}

/// Receives messages until the connection ends. Pings of the server need no answer here: the first
/// comes after two minutes, when the comparison is over.
async fn receive(mut reader: BufReader<TcpStream>, fanout: Arc<Fanout>) {
    let mut data = Vec::new();
    let error = loop {
        let line = match line(&mut reader).await {
            Ok(line) => line,
            Err(error) => break error,
        };
        let size = line.strip_prefix("MSG ").and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        let Some(size) = size else { continue };
        data.resize(size + 2, 0); // content and line end
        match reader.read_exact(&mut data).await {
            Ok(_) => fanout.received(&data),
            Err(error) => break error,
        }
    };
    fanout.fail(CallFailure::unexpected(error.to_string()));
}

async fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
