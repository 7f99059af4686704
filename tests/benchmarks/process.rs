//! The programs of others: where they are, and as child processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// What Tidings is measured beside, as far as it is to be had.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) nats: Option<PathBuf>,
    /// A Python that has the packages of `tests/naive`.
    pub(crate) python: Option<PathBuf>,
}

impl Programs {
    /// Brings what is missing into `dir`, if it can be had.
    pub(crate) fn find(dir: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/peers.sh");
        let _ = Command::new(script).arg(dir).status(); // it says itself what can not be had
        let brought = |name: &str| {
            let known = [dir.join("bin").join(name), name.into()];
            known.into_iter().find(|path| runs(path, "--version"))
        };
        let python = dir.join("python/bin/python");
        let complete = dir.join("python/requirements.txt").exists();
        Self { etcd: brought("etcd"), nats: brought("nats-server"), python: complete.then_some(python) }
    }
}

fn runs(program: &Path, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// A child process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of loopback on which nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens.
pub(crate) async fn listens(port: u16) {
    const PATIENCE: Duration = Duration::from_mins(1);
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "nobody listens on port {port}");
        sleep(Duration::from_millis(20)).await;
    }
}
