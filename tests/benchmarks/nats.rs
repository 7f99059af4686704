//! Core NATS, by its own text protocol.

use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tidings::load::{Call, Fanout, Fault};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::contests::{CALLERS, SUBSCRIBERS};
use crate::process::{Process, Programs, free_port, listens};

const CONNECTIONS: usize = 4;
const HELLO: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\"}\r\n";

/// A server of NATS.
pub(crate) struct Nats {
    port: u16,
    _process: Process,
}

impl Nats {
    /// Starts one; nothing if it is not to be had.
    pub(crate) async fn start(programs: &Programs) -> Option<Self> {
        let port = free_port();
        let process = Command::new(programs.nats.as_ref()?)
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(process.unwrap());
        listens(port).await;
        Some(Self { port, _process: process })
    }

    async fn connect(&self) -> TcpStream {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        connection.set_nodelay(true).unwrap();
        connection.write_all(HELLO).await.unwrap();
        connection
    }

    /// Publishes, until the last subscriber has it. The subscribers share a connection, as those of Tidings do.
    pub(crate) async fn fanout(&self) -> Call {
        let fanout = Arc::new(Fanout::new(CALLERS, SUBSCRIBERS));
        let mut connection = self.connect().await;
        for number in 1..=SUBSCRIBERS {
            connection.write_all(format!("SUB channel {number}\r\n").as_bytes()).await.unwrap();
        }
        connection.write_all(b"PING\r\n").await.unwrap();
        let mut reader = BufReader::new(connection);
        while line(&mut reader).await.unwrap() != "PONG" {}
        tokio::spawn(listen(reader, Arc::clone(&fanout)));

        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut heard, publishing) = self.connect().await.into_split();
            // The server greets, and is not listened to.
            tokio::spawn(async move { tokio::io::copy(&mut heard, &mut tokio::io::sink()).await });
            connections.push(Arc::new(Mutex::new(publishing)));
        }
        Arc::new(move |turn| {
            let (fanout, connection) = (Arc::clone(&fanout), Arc::clone(&connections[turn.caller % CONNECTIONS]));
            Box::pin(async move {
                let publish = |data: Vec<u8>| async move {
                    let frame = [format!("PUB channel {}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat();
                    let written = connection.lock().await.write_all(&frame).await;
                    written.map_err(|error| Fault::answer(error.to_string()))
                };
                fanout.deliver(turn, vec![b'x'; 100], publish).await.map(|_| 1)
            })
        })
    }
}

/// Reads messages until the server hangs up. Its pings come every two minutes: later than anything here lasts.
async fn listen(mut reader: BufReader<TcpStream>, fanout: Arc<Fanout>) {
    let mut data = Vec::new();
    let error = loop {
        let line = match line(&mut reader).await {
            Ok(line) => line,
            Err(error) => break error,
        };
        let size = line.strip_prefix("MSG ").and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        let Some(size) = size else { continue };
        data.resize(size + 2, 0); // and the end of the line
        match reader.read_exact(&mut data).await {
            Ok(_) => fanout.got(&data),
            Err(error) => break error,
        }
    };
    fanout.broken(Fault::answer(error.to_string()));
}

async fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
