//! A running installation, and the means to hurt it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};

/// The command under test.
pub(crate) const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings-node");

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ports of installations in this process: each gets its own.
static OFFSETS: Mutex<u16> = Mutex::new(0);

/// Ports that nobody uses, away from those of an installation that may run on this machine.
pub(crate) fn port_offset() -> u16 {
    let mut last = OFFSETS.lock().unwrap();
    loop {
        *last += 10;
        // Test processes that run side by side begin at different places.
        let offset = 1_000 + (u16::try_from(std::process::id() % 20).unwrap() * 500 + *last) % 10_000;
        if (7401..=7404).chain(9401..=9404).all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()) {
            return offset;
        }
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The services and their ports.
const SERVICES: [(&str, u16); 4] = [("user", 7401), ("history", 7402), ("lock", 7403), ("broadcast", 7404)];

/// A running `tidings up`. Stopped when dropped.
pub(crate) struct Up {
    process: Child,
    offset: u16,
    pub(crate) redis: String,
    pub(crate) postgres: String,
}

/// A further instance of a service. Killed when dropped.
pub(crate) struct Instance {
    process: Child,
    address: String,
}

impl Up {
    /// Starts it in a directory and waits until it says that it is up.
    pub(crate) fn start(dir: &Path) -> Self {
        let offset = port_offset();
        let mut process = Command::new(TIDINGS)
            .args(["up", "--dir"])
            .arg(dir)
            .args(["--port-offset", &offset.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut card = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut find = |scheme: &str| {
            let word = card.find_map(|line| {
                let line = line.unwrap();
                line.split(' ').find(|word| word.starts_with(scheme)).map(str::to_owned)
            });
            word.expect("tidings up says where everything is")
        };
        let (postgres, redis) = (find("postgres://"), find("redis://"));
        // Whoever closes the pipe would make its writer fail: the rest is read and forgotten.
        thread::spawn(move || card.for_each(drop));
        Self { process, offset, redis, postgres }
    }

    /// Where a service listens.
    pub(crate) fn address(&self, service: &str) -> String {
        format!("127.0.0.1:{}", self.port(service))
    }

    /// Where its Postgres is, with the database of users.
    pub(crate) fn postgres(&self) -> &str {
        &self.postgres
    }

    /// Where its Redis is.
    pub(crate) fn redis(&self) -> &str {
        &self.redis
    }

    fn port(&self, service: &str) -> u16 {
        let (_, port) = SERVICES.into_iter().find(|(name, _)| *name == service).unwrap();
        port + self.offset
    }

    /// Where all services are, as the command reads it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, String)> {
        SERVICES.into_iter().map(|(name, _)| (format!("TIDINGS_{}_ADDR", name.to_uppercase()), self.address(name)))
    }

    /// Starts another instance of a service, on the same Postgres and Redis, and waits until it listens.
    pub(crate) fn another(&self, service: &str) -> Instance {
        let port = self.port(service) + 5; // between two installations
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(TIDINGS)
            .args(["serve", service])
            .env("TIDINGS_LISTEN", &address)
            .env("TIDINGS_POSTGRES_URL", self.postgres.replace("tidings_user", &format!("tidings_{service}")))
            .env("TIDINGS_REDIS_URL", &self.redis)
            .env("TIDINGS_BROADCAST_ADDR", self.address("broadcast"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let instance = Instance { process, address };
        eventually(&format!("{service} listens"), || TcpStream::connect(&instance.address).ok());
        instance
    }

    /// The value of a metric of a service, if it is there.
    pub(crate) fn metric(&self, service: &str, name: &str) -> Option<f64> {
        let (_, numbers) = self.admin(service, "/metrics")?;
        numbers.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Whether a service is ready, as a code, and its health, an entry a line.
    pub(crate) fn readyz(&self, service: &str) -> (u16, String) {
        eventually(&format!("{service} answers probes"), || self.admin(service, "/readyz"))
    }

    /// What a service answers over plain HTTP.
    fn admin(&self, service: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port(service) + 2000)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A command of `tidings` against this installation.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TIDINGS);
        command.args(arguments).current_dir(root());
        command.envs(self.addresses());
        command
    }

    /// Calls a method and returns its answer.
    pub(crate) fn call(&self, method: &str, request: &str) -> serde_json::Value {
        let output = self.command(&["call", method, request]).output().unwrap();
        assert!(output.status.success(), "{method}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The process of a server or service, as the child of `tidings up` that it is.
    pub(crate) fn pid(&self, what: &str) -> Option<Pid> {
        let serves = format!("\0serve\0{what}\0");
        let found = children(self.process.id()).into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.trim_end() == what || String::from_utf8_lossy(&line).contains(&serves)
        });
        Pid::from_raw(i32::try_from(found?).ok()?)
    }

    /// Sends a signal to a server or service, once it runs.
    pub(crate) fn signal(&self, what: &str, signal: Signal) {
        let pid = eventually(&format!("{what} runs"), || self.pid(what));
        let _ = kill_process(pid, signal);
    }

    /// Sends a signal to a server with all its processes.
    pub(crate) fn signal_all_of(&self, server: &str, signal: Signal) {
        let pid = eventually(&format!("{server} runs"), || self.pid(server));
        let _ = kill_process(pid, signal);
        // Those of Postgres are in groups of their own.
        for child in children(pid.as_raw_nonzero().get().unsigned_abs()) {
            if let Some(child) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                let _ = kill_process(child, signal);
            }
        }
    }

    /// Lets Redis forget everything.
    pub(crate) fn flush_redis(&self) {
        let mut redis = redis::Client::open(self.redis.as_str()).unwrap().get_connection().unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    }

    /// What a query of a database counts.
    pub(crate) fn count(&self, database: &str, query: &'static str) -> i64 {
        let url = self.postgres.replace("tidings_user", database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        })
    }

    /// The process of `tidings up` itself.
    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(0)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

impl Instance {
    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The pids of the children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state, then the parent.
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&parent)
    })
    .collect()
}

/// What a command said to people.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Prints figures past the harness, which keeps to itself what tests that succeed print.
pub(crate) fn say(figures: &str) {
    std::io::stderr().write_all(figures.as_bytes()).unwrap();
}

/// Waits for something to be there.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command to its end, giving up when it takes too long.
pub(crate) fn finish(command: &mut Command) -> Output {
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        text
    });
    let mut stderr = Vec::new();
    let _ = err.read_to_end(&mut stderr);
    let stdout = reading.join().unwrap();
    Output { status: process.wait().unwrap(), stdout, stderr }
}

/// Real conversations, if there are any on this machine: `TIDINGS_IRC_DIR` names them.
pub(crate) fn real_logs(test: &str) -> Option<Vec<PathBuf>> {
    let dir = std::env::var_os("TIDINGS_IRC_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let Some(dir) = dir else {
        eprintln!("{test}: skipped, TIDINGS_IRC_DIR names no directory with logs");
        return None;
    };
    let mut logs: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    logs.sort();
    Some(logs)
}
