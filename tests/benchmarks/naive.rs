//! The naive Python implementation of the four patterns, `tests/naive`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use tidings_client::Addresses;

use crate::installation::Installation;
use crate::process::{ChildProcess, PeerPrograms, free_port, root};

/// The Python server, which implements the contracts of Tidings.
pub(crate) struct NaiveServer {
    address: Addresses,
    _process: ChildProcess,
}

impl NaiveServer {
    /// Starts the server on the Postgres and Redis of Tidings; returns `None` if its packages are
    /// not available.
    pub(crate) async fn start(programs: &PeerPrograms, installation: &Installation) -> Option<Self> {
        let python = programs.python.as_ref()?;
        let port = free_port();
        let mut process = Command::new(python)
            .arg(root().join("tests/naive/server.py"))
            .arg("--proto")
            .arg(root().join("proto"))
            .args(["--port", &port.to_string(), "--redis", &installation.redis()])
            .args(["--postgres", &installation.database("naive").await])
            .stdin(Stdio::piped()) // the server ends with this process
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready", "tests/naive/server.py did not start");
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        Some(Self { address, _process: ChildProcess(process) })
    }

    pub(crate) fn address(&self) -> &Addresses {
        &self.address
    }
}
