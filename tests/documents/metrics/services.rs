//! What the four services tell Prometheus right after their start, with everything that they can be asked for turned on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tidings_devstack::testing;
use tokio::sync::OnceCell;

/// The services in the order of their ports.
pub(super) const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];
/// Longest wait for a service.
const PATIENCE: Duration = Duration::from_mins(1);

static EXPOSITIONS: OnceCell<[String; 4]> = OnceCell::const_new();

/// Theirs, in that order.
pub(super) async fn expositions() -> &'static [String; 4] {
    let look = async || {
        let files = Files::new();
        let mut found = Vec::new();
        for service in SERVICES {
            found.push(Service::start(service, &files).await.exposition());
        }
        found.try_into().unwrap()
    };
    EXPOSITIONS.get_or_init(look).await
}

/// A certificate and a list of tokens.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(files.path("cert.pem"), certificate.pem()).unwrap();
        fs::write(files.path("key.pem"), key.serialize_pem()).unwrap();
        let token = Command::new(env!("CARGO_BIN_EXE_tidings-node"))
            .args(["token", "new", "--name", "somebody", "--scope", "*:read", "--out"])
            .arg(files.path("token"))
            .arg("--append")
            .arg(files.path("tokens"))
            .status();
        assert!(token.unwrap().success());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A running service. Killed when dropped.
struct Service {
    process: Child,
    admin: SocketAddr,
}

impl Service {
    async fn start(name: &str, files: &Files) -> Self {
        let stack = testing::shared().await;
        let place = format!("{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&place).await.unwrap();
        let admin = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-node"));
        command.args(["serve", name, "--stop-with-stdin"]);
        if name != "broadcast" {
            command.env("TIDINGS_MIGRATE", "true");
        }
        let process = command
            .env("TIDINGS_TLS_CERT", files.path("cert.pem"))
            .env("TIDINGS_TLS_KEY", files.path("key.pem"))
            .env("TIDINGS_TOKEN_FILE", files.path("tokens"))
            .env("TIDINGS_LISTEN", free().to_string())
            .env("TIDINGS_ADMIN_LISTEN", admin.to_string())
            .env("TIDINGS_POSTGRES_URL", stack.postgres().url(&place))
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_REDIS_PREFIX", &place)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, admin }
    }

    /// What it tells as soon as it is ready.
    fn exposition(mut self) -> String {
        let begun = Instant::now();
        while get(self.admin, "/readyz").is_none_or(|(head, _)| !head.starts_with("HTTP/1.0 200")) {
            assert_eq!(self.process.try_wait().unwrap(), None, "it has ended");
            assert!(begun.elapsed() < PATIENCE, "it is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        get(self.admin, "/metrics").unwrap().1
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that nobody uses.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Head and body of an answer, if there is one.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}
