//! The four patterns as they are usually written: `tests/naive`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tidings_client::Addresses;

use crate::installation::Installation;
use crate::process::{Process, Programs, free_port};
use crate::root;

/// The server in Python, which has the contracts of Tidings.
pub(crate) struct Naive {
    address: Addresses,
    _process: Process,
}

impl Naive {
    /// Starts it on the servers that Tidings uses; nothing if its packages are not to be had.
    pub(crate) async fn start(programs: &Programs, ours: &Installation) -> Option<Self> {
        let python = programs.python.as_ref()?;
        let port = free_port();
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("naive/server.py"))
            .arg("--proto")
            .arg(root().join("proto"))
            .args(["--port", &port.to_string(), "--redis", &ours.redis()])
            .args(["--postgres", &ours.database("naive").await])
            .stdin(Stdio::piped()) // it ends with us
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready", "tests/naive/server.py has not started");
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        Some(Self { address, _process: Process(process) })
    }

    pub(crate) fn address(&self) -> &Addresses {
        &self.address
    }
}
