//! A private PgBouncer in front of a test's Postgres.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tidings_devstack::testing::{self, eventually};
use tokio::net::{TcpListener, TcpStream};

/// Places of the program; Debian's is not in the `PATH` of users.
const PROGRAMS: [&str; 3] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// A running PgBouncer; killed on drop.
pub(crate) struct PgBouncer {
    process: Child,
    directory: PathBuf,
    port: u16,
}

impl PgBouncer {
    /// Starts one on the shared Postgres, with lines of configuration. Returns `None`, and says so,
    /// if the program is not installed.
    pub(crate) async fn start(configuration: &str) -> Option<Self> {
        let Some(program) = PROGRAMS.map(Path::new).into_iter().find(|path| path.exists()) else {
            #[expect(clippy::print_stderr, reason = "a skipped test says why")]
            {
                eprintln!("skipped: pgbouncer is not installed (apt-get install pgbouncer)");
            }
            return None;
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let server = testing::shared().await.postgres().port();
        let directory = std::env::temp_dir().join(format!("tidings-pgbouncer-{}-{port}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\n{configuration}\n"
        );
        // With `any` the user of the connections to Postgres must be given.
        let text = text.replace("127.0.0.1 port=", "127.0.0.1 user=tidings port=");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]); // it refuses to run as root
        }
        let process = command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let bouncer = Self { process: process.unwrap(), directory, port };
        let listens = async || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok();
        eventually("pgbouncer listens", listens).await;
        Some(bouncer)
    }

    /// Returns a URL of Postgres as a URL through this pooler.
    pub(crate) async fn url(&self, url: &str) -> String {
        let server = testing::shared().await.postgres().port();
        url.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
