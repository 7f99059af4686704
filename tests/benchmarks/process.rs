//! The alternatives as programs and child processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Paths of the alternatives; `None` for one that is not available.
#[derive(Debug)]
pub(crate) struct PeerPrograms {
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) nats: Option<PathBuf>,
    /// A Python interpreter with the packages of `tests/naive`.
    pub(crate) python: Option<PathBuf>,
}

impl PeerPrograms {
    /// Finds the programs; downloads missing ones into `dir` if possible.
    pub(crate) fn find(dir: &Path) -> Self {
        let script = root().join("tests/benchmarks/peers.sh");
        let _ = Command::new(script).arg(dir).status(); // it reports what is not available
        let find = |name: &str| {
            let paths = [dir.join("bin").join(name), name.into()];
            paths.into_iter().find(|path| prints_version(path))
        };
        let python = dir.join("python/bin/python");
        let installed = dir.join("python/requirements.txt").exists();
        Self { etcd: find("etcd"), nats: find("nats-server"), python: installed.then_some(python) }
    }
}

fn prints_version(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A child process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess(pub(crate) Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns an unused port of the loopback interface.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a server listens on the port; panics after a minute.
pub(crate) async fn wait_for_port(port: u16) {
    const PATIENCE: Duration = Duration::from_mins(1);
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "no server listens on port {port}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
