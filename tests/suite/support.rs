//! Runs `tidings up` and other commands, and signals their processes.

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

/// Longest wait of [`eventually`].
const TIMEOUT: Duration = Duration::from_mins(1);

/// Offset that was handed out last; each installation of this process gets another one.
static LAST_OFFSET: Mutex<u16> = Mutex::new(0);

/// Returns an offset whose ports are free and differ from those of a default installation.
pub(crate) fn port_offset() -> u16 {
    let mut last = LAST_OFFSET.lock().unwrap();
    loop {
        *last += 10;
        // Concurrent test processes start at different offsets.
        let offset = 1_000 + (u16::try_from(std::process::id() % 20).unwrap() * 500 + *last) % 10_000;
        if (7401..=7404).chain(9401..=9404).all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()) {
            return offset;
        }
    }
}

/// Returns the root directory of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Services with their default ports.
pub(crate) const SERVICES: [(&str, u16); 4] = [("user", 7401), ("history", 7402), ("lock", 7403), ("broadcast", 7404)];

/// A running `tidings up`: Postgres, Redis and all services. Stopped on drop.
pub(crate) struct TidingsUp {
    process: Child,
    offset: u16,
    pub(crate) redis: String,
    pub(crate) postgres: String,
}

/// An additional instance of a service. Killed on drop.
pub(crate) struct ExtraInstance {
    process: Child,
    address: String,
}

impl TidingsUp {
    /// Starts `tidings up` in a directory and waits until it prints its addresses.
    pub(crate) fn start(dir: &Path) -> Self {
        let offset = port_offset();
        let mut process = Command::new(TIDINGS)
            .args(["up", "--dir"])
            .arg(dir)
            .args(["--port-offset", &offset.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output_lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut find = |scheme: &str| {
            let word = output_lines.find_map(|line| {
                let line = line.unwrap();
                line.split(' ').find(|word| word.starts_with(scheme)).map(str::to_owned)
            });
            word.expect("`tidings up` prints the addresses of Postgres and Redis")
        };
        let (postgres, redis) = (find("postgres://"), find("redis://"));
        // A closed pipe would make `tidings up` fail: read and discard the rest.
        thread::spawn(move || output_lines.for_each(drop));
        Self { process, offset, redis, postgres }
    }

    /// Returns the gRPC address of a service, e.g. `127.0.0.1:8411`.
    pub(crate) fn address(&self, service: &str) -> String {
        format!("127.0.0.1:{}", self.port(service))
    }

    /// Returns the Postgres URL of the user database.
    pub(crate) fn postgres(&self) -> &str {
        &self.postgres
    }

    /// Returns the Redis URL.
    pub(crate) fn redis(&self) -> &str {
        &self.redis
    }

    fn port(&self, service: &str) -> u16 {
        let (_, port) = SERVICES.into_iter().find(|(name, _)| *name == service).unwrap();
        port + self.offset
    }

    /// Returns the environment variables with which commands find the services.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, String)> {
        SERVICES.into_iter().map(|(name, _)| (format!("TIDINGS_{}_ADDR", name.to_uppercase()), self.address(name)))
    }

    /// Starts another instance of a service on the same Postgres and Redis, and waits until it
    /// listens.
    pub(crate) fn start_another(&self, service: &str) -> ExtraInstance {
        let port = self.port(service) + 5; // offsets are multiples of 10
        let postgres = self.postgres.replace("tidings_user", &format!("tidings_{service}"));
        ExtraInstance::start(service, port, &postgres, &self.redis, &self.address("broadcast"))
    }

    /// Returns the value of a metric of a service, `None` if it is not exported.
    pub(crate) fn metric(&self, service: &str, name: &str) -> Option<f64> {
        let (_, metrics) = self.admin(service, "/metrics")?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Returns status code and body of `/readyz`: the health of the service, one entry a line.
    pub(crate) fn readyz(&self, service: &str) -> (u16, String) {
        eventually(&format!("{service} answers probes"), || self.admin(service, "/readyz"))
    }

    /// Returns status code and body of an HTTP response of a service's admin listener.
    fn admin(&self, service: &str, path: &str) -> Option<(u16, String)> {
        http_get(self.port(service) + 2000, path)
    }

    /// Returns a `tidings` command that calls the services of this installation.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TIDINGS);
        command.args(arguments).current_dir(root());
        command.envs(self.addresses());
        command
    }

    /// Calls a method with `tidings call` and returns the response.
    pub(crate) fn call(&self, method: &str, request: &str) -> serde_json::Value {
        let output = self.command(&["call", method, request]).output().unwrap();
        assert!(output.status.success(), "{method}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the child process of `tidings up` that runs a server or service.
    pub(crate) fn pid(&self, what: &str) -> Option<Pid> {
        let serves = format!("\0serve\0{what}\0");
        let found = children(self.process.id()).into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            name.trim_end() == what || String::from_utf8_lossy(&line).contains(&serves)
        });
        Pid::from_raw(i32::try_from(found?).ok()?)
    }

    /// Sends a signal to a server or service as soon as it runs.
    pub(crate) fn signal(&self, what: &str, signal: Signal) {
        let pid = eventually(&format!("{what} runs"), || self.pid(what));
        let _ = kill_process(pid, signal);
    }

    /// Sends a signal to a server and its child processes.
    pub(crate) fn signal_all_processes(&self, server: &str, signal: Signal) {
        let pid = eventually(&format!("{server} runs"), || self.pid(server));
        let _ = kill_process(pid, signal);
        // Postgres backends have process groups of their own.
        for child in children(pid.as_raw_nonzero().get().unsigned_abs()) {
            if let Some(child) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                let _ = kill_process(child, signal);
            }
        }
    }

    /// Deletes all keys in Redis.
    pub(crate) fn flush_redis(&self) {
        let mut redis = redis::Client::open(self.redis.as_str()).unwrap().get_connection().unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    }

    /// Returns the count that a query in a database selects.
    pub(crate) fn count(&self, database: &str, query: &'static str) -> i64 {
        let url = self.postgres.replace("tidings_user", database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        })
    }

    /// Returns the process of `tidings up` itself.
    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process
    }
}

impl Drop for TidingsUp {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(0)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

impl ExtraInstance {
    /// Starts an instance of a service, and waits until it listens.
    pub(crate) fn start(service: &str, port: u16, postgres: &str, redis: &str, broadcast: &str) -> Self {
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(TIDINGS)
            .args(["serve", service])
            .env("TIDINGS_LISTEN", &address)
            .env("TIDINGS_POSTGRES_URL", postgres)
            .env("TIDINGS_MIGRATE", "true")
            .env("TIDINGS_REDIS_URL", redis)
            .env("TIDINGS_BROADCAST_ADDR", broadcast)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let instance = Self { process, address };
        eventually(&format!("{service} listens"), || TcpStream::connect(&instance.address).ok());
        instance
    }

    /// Returns the gRPC address, e.g. `127.0.0.1:8416`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits for a line of `/readyz`.
    pub(crate) fn wait_for_health(&self, line: &str) {
        let port: u16 = self.address.rsplit(':').next().unwrap().parse().unwrap();
        let mut last = String::new();
        eventually(&format!("{line} at {}", self.address), || {
            last = http_get(port + 2000, "/readyz")?.1;
            last.lines().any(|entry| entry == line).then_some(())
        });
    }

    /// Kills the process and reaps it.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ExtraInstance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns status code and body of an HTTP response.
fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Returns the pids of the child processes of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may contain spaces and parentheses: skip it. State and parent follow.
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&parent)
    })
    .collect()
}

/// Returns the standard error of a command as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Prints to standard error past the test harness, which hides the output of passing tests.
pub(crate) fn print_figures(figures: &str) {
    std::io::stderr().write_all(figures.as_bytes()).unwrap();
}

/// Polls until `condition` returns a value; panics after a minute.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command to its end and captures its output.
pub(crate) fn output_of(command: &mut Command) -> Output {
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

/// Returns the IRC logs in the directory `TIDINGS_IRC_DIR`, `None` without such a directory.
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
