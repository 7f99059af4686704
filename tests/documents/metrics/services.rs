//! Scrapes of the four services right after their start, with every optional feature enabled.

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

/// Returns one scrape per service, in the order of [`SERVICES`].
pub(super) async fn expositions() -> &'static [String; 4] {
    let scrape = async || {
        let files = SecurityFiles::new();
        let mut scrapes = Vec::new();
        for service in SERVICES {
            scrapes.push(ServiceProcess::start(service, &files).await.exposition());
        }
        scrapes.try_into().unwrap()
    };
    EXPOSITIONS.get_or_init(scrape).await
}

/// A certificate and a token file.
struct SecurityFiles(TempDir);

impl SecurityFiles {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(files.path("cert.pem"), certificate.pem()).unwrap();
        fs::write(files.path("key.pem"), key.serialize_pem()).unwrap();
        let token = Command::new(env!("CARGO_BIN_EXE_tidings-node"))
            .args(["token", "new", "--name", "metrics-test", "--scope", "*:read", "--out"])
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

/// A running service; killed when dropped.
struct ServiceProcess {
    process: Child,
    admin: SocketAddr,
}

impl ServiceProcess {
    async fn start(name: &str, files: &SecurityFiles) -> Self {
        let stack = testing::shared().await;
        let name_in_stores = format!("{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&name_in_stores).await.unwrap();
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
            .env("TIDINGS_POSTGRES_URL", stack.postgres().url(&name_in_stores))
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_REDIS_PREFIX", &name_in_stores)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, admin }
    }

    /// Returns the scrape as soon as the service is ready.
    fn exposition(mut self) -> String {
        let start = Instant::now();
        while get(self.admin, "/readyz").is_none_or(|(head, _)| !head.starts_with("HTTP/1.0 200")) {
            assert_eq!(self.process.try_wait().unwrap(), None, "the service has exited");
            assert!(start.elapsed() < PATIENCE, "the service is not ready");
            thread::sleep(Duration::from_millis(20));
        }
        get(self.admin, "/metrics").unwrap().1
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a free local address.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Returns head and body of the response, if any.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}
