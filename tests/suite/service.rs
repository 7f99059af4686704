//! Runs one service as a process, by default on the Postgres and Redis that all tests share.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::NamedTempFile;
use tidings_devstack::{Devstack, testing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use crate::support::{TIDINGS, port_offset};

/// gRPC port, before the offset that keeps concurrent tests apart is added.
const PORT: u16 = 7401;
/// Port of metrics and probes, before the same offset.
const ADMIN_PORT: u16 = 9401;
/// Longest wait for an event that normally takes milliseconds.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(15);

/// A running service process. Killed on drop; it also ends if the test process dies.
pub(crate) struct TestService {
    /// gRPC listener.
    pub(crate) address: SocketAddr,
    /// HTTP listener of metrics and probes.
    pub(crate) admin: SocketAddr,
    options: LaunchOptions,
    process: Child,
    log: NamedTempFile,
}

/// Service name, flags and environment of a launch; a restart reuses them.
#[derive(Clone)]
struct LaunchOptions {
    name: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Postgres and Redis of the service.
    stack: &'static Devstack,
    /// Name of the database, and prefix of the Redis keys.
    namespace: String,
}

impl LaunchOptions {
    /// Creates an empty database for the service.
    async fn new(stack: &'static Devstack, name: &'static str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let namespace = format!("{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&namespace).await.unwrap();
        let arguments = flags.iter().map(ToString::to_string).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name, arguments, variables, stack, namespace }
    }
}

impl TestService {
    /// Starts a service with an empty database and waits until it listens.
    pub(crate) async fn start(name: &'static str, flags: &[&str]) -> Self {
        Self::start_with_env(name, flags, &[]).await
    }

    /// Starts a service with environment variables; otherwise like [`start`](Self::start).
    pub(crate) async fn start_with_env(name: &'static str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on(testing::shared().await, name, flags, variables).await
    }

    /// Starts a service on the given Postgres and Redis, which the test may own and stop.
    pub(crate) async fn start_on(
        stack: &'static Devstack,
        name: &'static str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::launch(LaunchOptions::new(stack, name, flags, variables).await, port_offset()).await
    }

    /// Starts a service whose startup must fail, and waits until it has exited.
    ///
    /// # Panics
    /// If it does not exit with code 1 within [`MAX_WAIT`].
    pub(crate) async fn start_and_fail(
        stack: &'static Devstack,
        name: &'static str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut service = Self::spawn(LaunchOptions::new(stack, name, flags, variables).await, port_offset());
        service.wait_for_failure().await;
        service
    }

    /// Waits until the process has exited with an error.
    ///
    /// # Panics
    /// If it does not exit with code 1 within [`MAX_WAIT`].
    pub(crate) async fn wait_for_failure(&mut self) {
        let status = self.wait_for_exit(MAX_WAIT).await;
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", self.log());
    }

    /// Starts another instance of the service with the same options, on another port.
    pub(crate) async fn start_another(&self) -> Self {
        Self::launch(self.options.clone(), port_offset()).await
    }

    /// Sends a signal, waits for the exit, and starts the service again on the same port.
    ///
    /// # Panics
    /// If the process does not exit, or exits with an error after a signal other than SIGKILL.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
        let status = self.wait_for_exit(2 * MAX_WAIT).await;
        let clean = |status: ExitStatus| status.success() || signal == Signal::KILL;
        assert!(status.is_some_and(clean), "{status:?}: {}", self.log());
        self.assert_did_not_panic();
        *self = Self::launch(self.options.clone(), self.address.port() - PORT).await;
    }

    async fn launch(options: LaunchOptions, offset: u16) -> Self {
        let mut service = Self::spawn(options, offset);
        service.wait_until_listening().await;
        service
    }

    /// Starts a service with this standard error; its [`log`](Self::log) stays empty.
    pub(crate) async fn start_with_stderr(name: &'static str, variables: &[(&str, &str)], stderr: Stdio) -> Self {
        let options = LaunchOptions::new(testing::shared().await, name, &[], variables).await;
        let mut service = Self::spawn_with(options, port_offset(), NamedTempFile::new().unwrap(), stderr);
        service.wait_until_listening().await;
        service
    }

    fn spawn(options: LaunchOptions, offset: u16) -> Self {
        let log = NamedTempFile::new().unwrap();
        let stderr = log.reopen().unwrap().into();
        Self::spawn_with(options, offset, log, stderr)
    }

    fn spawn_with(options: LaunchOptions, offset: u16, log: NamedTempFile, stderr: Stdio) -> Self {
        let stack = options.stack;
        let [address, admin] = [PORT, ADMIN_PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port + offset)));
        let mut command = Command::new(TIDINGS);
        command.args(["serve", options.name, "--stop-with-stdin"]).args(&options.arguments);
        if options.name != "broadcast" {
            command.env("TIDINGS_MIGRATE", "true");
        }
        if !options.variables.iter().any(|(name, _)| name == "TIDINGS_POSTGRES_URL_FILE") {
            command.env("TIDINGS_POSTGRES_URL", stack.postgres().url(&options.namespace));
        }
        let process = command
            .envs(options.variables.iter().cloned())
            .env("TIDINGS_LISTEN", address.to_string())
            .env("TIDINGS_ADMIN_LISTEN", admin.to_string())
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_REDIS_PREFIX", &options.namespace)
            .stdin(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { address, admin, options, process, log }
    }

    /// Waits until the gRPC and the admin port accept connections.
    async fn wait_until_listening(&mut self) {
        let deadline = Instant::now() + MAX_WAIT;
        while TcpStream::connect(self.address).await.and(TcpStream::connect(self.admin).await).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} does not listen: {}",
                self.options.name,
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the Postgres and Redis of the service.
    pub(crate) fn stack(&self) -> &'static Devstack {
        self.options.stack
    }

    /// Returns the prefix of the service's Redis keys, without the colon that follows it.
    pub(crate) fn redis_prefix(&self) -> &str {
        &self.options.namespace
    }

    /// Returns the name of the service's database.
    pub(crate) fn database(&self) -> &str {
        &self.options.namespace
    }

    /// Returns everything the service has logged since its last start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Opens a connection with a call timeout of [`MAX_WAIT`].
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().timeout(MAX_WAIT);
        endpoint.connect().await.unwrap()
    }

    /// Returns the CPU time of all threads of the process since its start.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        // The name may contain spaces and parentheses: skip it. The rest starts with field 3; utime
        // and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Linux reports these fields in hundredths of a second (USER_HZ), independent of its clock.
        Duration::from_millis(10 * ticks)
    }

    /// Returns the CPU time used since an earlier [`cpu_time`](Self::cpu_time).
    pub(crate) fn cpu_time_since(&self, before: Duration) -> Duration {
        self.cpu_time().saturating_sub(before)
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the peak of resident memory since [`reset_peak_memory`](Self::reset_peak_memory),
    /// in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub(crate) fn reset_peak_memory(&self) {
        fs::write(self.proc("clear_refs"), "5").unwrap(); // proc(5)
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Returns the number of open file descriptors.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Waits until resident memory is at most `memory` bytes.
    pub(crate) async fn wait_for_memory(&self, memory: u64, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.memory() > memory {
            assert!(Instant::now() < deadline, "{} bytes of memory, at most {memory} expected", self.memory());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until at most `files` descriptors are open, i.e. all abusive connections are closed.
    pub(crate) async fn wait_for_open_files(&self, files: usize, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.open_files() > files {
            assert!(Instant::now() < deadline, "{} open files, at most {files} expected", self.open_files());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes every further open fail with EMFILE; open descriptors stay open.
    pub(crate) fn exhaust_file_descriptors(&self) {
        // The limit applies to the number of a new descriptor, which is the lowest free one.
        let lowest_free = (0..i32::MAX).find(|fd| !self.proc("fd").join(fd.to_string()).is_symlink()).unwrap();
        self.limit_file_descriptors(lowest_free.try_into().unwrap());
    }

    /// Restores the descriptor limit that the service started with.
    pub(crate) fn restore_file_descriptors(&self) {
        self.limit_file_descriptors(getrlimit(Resource::Nofile).current.unwrap());
    }

    fn limit_file_descriptors(&self, current: u64) {
        // The service inherited its hard limit from this process.
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// Returns the whole HTTP response of the admin listener, head included.
    pub(crate) async fn http_response(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: tidings\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Returns status code and body of an HTTP response of the admin listener.
    pub(crate) async fn http_get(&self, path: &str) -> (u16, String) {
        let response = self.http_response(path).await;
        let (head, text) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), text.to_owned())
    }

    /// Returns the value of a metric; `name` includes all labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.http_get("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in: {metrics}"))
    }

    /// Waits until `/readyz` contains a line, e.g. `postgres SERVING`; returns the time it took.
    pub(crate) async fn wait_for_health(&self, line: &str) -> Duration {
        self.wait_for_entry(line, |entry| entry == line).await
    }

    /// Waits until a line of `/readyz` starts with a text.
    pub(crate) async fn wait_for_health_start(&self, start: &str) -> Duration {
        self.wait_for_entry(start, |entry| entry.starts_with(start)).await
    }

    async fn wait_for_entry(&self, line: &str, matches: impl Fn(&str) -> bool) -> Duration {
        let started = Instant::now();
        while !self.http_get("/readyz").await.1.lines().any(&matches) {
            assert!(started.elapsed() < 2 * MAX_WAIT, "/readyz lacks '{line}': {}", self.http_get("/readyz").await.1);
            sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    }

    /// Sends SIGTERM, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits up to `timeout` for the exit of the process; `None` if it still runs.
    pub(crate) async fn wait_for_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.process.try_wait().unwrap() {
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                ended => return ended,
            }
        }
    }

    /// Asserts that the process runs and has logged no panic.
    pub(crate) fn assert_running(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "{} has exited: {}", self.options.name, self.log());
        self.assert_did_not_panic();
    }

    /// Asserts that the process has logged no panic.
    pub(crate) fn assert_did_not_panic(&self) {
        let log = self.log();
        let panic = log.lines().find(|line| line.contains("panic"));
        assert_eq!(panic, None);
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string()).join(file)
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
