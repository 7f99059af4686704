//! One service as a process of its own, with flags of the test's choice, on the servers that these tests share.

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

/// Where services listen, and serve their numbers, before the ports are moved out of each other's way.
const PORT: u16 = 7401;
const ADMIN_PORT: u16 = 9401;
/// Longest wait for anything that a service does at once.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A running service. Killed when dropped, and it ends with this process, however that ends.
pub(crate) struct Service {
    /// Where it serves gRPC.
    pub(crate) address: SocketAddr,
    /// Where it serves its numbers.
    pub(crate) admin: SocketAddr,
    settings: Settings,
    process: Child,
    log: NamedTempFile,
}

/// What a service is started with.
#[derive(Clone)]
struct Settings {
    name: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// The servers that it uses.
    stack: &'static Devstack,
    /// Its database, and what its keys in Redis begin with.
    place: String,
}

impl Settings {
    /// With an empty database.
    async fn new(stack: &'static Devstack, name: &'static str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let place = format!("{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&place).await.unwrap();
        let arguments = flags.iter().map(ToString::to_string).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name, arguments, variables, stack, place }
    }
}

impl Service {
    /// Starts a service with an empty database, and waits until it listens.
    pub(crate) async fn start(name: &'static str, flags: &[&str]) -> Self {
        Self::with(name, flags, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn with(name: &'static str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::on(testing::shared().await, name, flags, variables).await
    }

    /// The same on servers of the test's own, which it may hurt.
    pub(crate) async fn on(
        stack: &'static Devstack,
        name: &'static str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::launch(Settings::new(stack, name, flags, variables).await, port_offset()).await
    }

    /// Starts a service that is expected to refuse, and waits until it has.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) async fn refused(
        stack: &'static Devstack,
        name: &'static str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut service = Self::spawn(Settings::new(stack, name, flags, variables).await, port_offset());
        service.refuses().await;
        service
    }

    /// Waits until it has ended because something is not as it should be.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) async fn refuses(&mut self) {
        let status = self.ended(SOON).await;
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", self.log());
    }

    /// Starts another instance of the service, at another port.
    pub(crate) async fn another(&self) -> Self {
        Self::launch(self.settings.clone(), port_offset()).await
    }

    /// Ends it by a signal, waits until it has ended, and starts it again at the same port.
    ///
    /// # Panics
    /// If it does not end, or not in order though it was asked to.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
        let status = self.ended(2 * SOON).await;
        let in_order = |status: ExitStatus| status.success() || signal == Signal::KILL;
        assert!(status.is_some_and(in_order), "{status:?}: {}", self.log());
        self.assert_did_not_panic();
        *self = Self::launch(self.settings.clone(), self.address.port() - PORT).await;
    }

    async fn launch(settings: Settings, offset: u16) -> Self {
        let mut service = Self::spawn(settings, offset);
        service.listens().await;
        service
    }

    fn spawn(settings: Settings, offset: u16) -> Self {
        let stack = settings.stack;
        let [address, admin] = [PORT, ADMIN_PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port + offset)));
        let log = NamedTempFile::new().unwrap();
        let mut command = Command::new(TIDINGS);
        command.args(["serve", settings.name, "--stop-with-stdin"]).args(&settings.arguments);
        if settings.name != "broadcast" {
            command.env("TIDINGS_MIGRATE", "true");
        }
        let process = command
            .envs(settings.variables.iter().cloned())
            .env("TIDINGS_LISTEN", address.to_string())
            .env("TIDINGS_ADMIN_LISTEN", admin.to_string())
            .env("TIDINGS_POSTGRES_URL", stack.postgres().url(&settings.place))
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_REDIS_PREFIX", &settings.place)
            .stdin(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { address, admin, settings, process, log }
    }

    /// Waits until it listens for calls, and for those who ask how it is.
    async fn listens(&mut self) {
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(self.address).await.and(TcpStream::connect(self.admin).await).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} does not listen: {}",
                self.settings.name,
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The servers that it uses.
    pub(crate) fn stack(&self) -> &'static Devstack {
        self.settings.stack
    }

    /// Its database, and what its keys in Redis begin with.
    pub(crate) fn place(&self) -> &str {
        &self.settings.place
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// A connection of a client that behaves, whose calls fail rather than wait for ever.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().timeout(SOON);
        endpoint.connect().await.unwrap()
    }

    /// The CPU time that all its threads have used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        // After the name, which may hold anything, the third field of the file; utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Linux tells it in hundredths of a second, whatever its own clock is.
        Duration::from_millis(10 * ticks)
    }

    /// The CPU time that it has used since it had used so much.
    pub(crate) fn cpu_since(&self, before: Duration) -> Duration {
        self.cpu().saturating_sub(before)
    }

    /// The memory that it has, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that it had since [`forget_peak`](Self::forget_peak), in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) {
        fs::write(self.proc("clear_refs"), "5").unwrap(); // proc(5)
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Waits until it has no more memory than this.
    pub(crate) async fn memory_falls_to(&self, memory: u64, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.memory() > memory {
            assert!(Instant::now() < deadline, "it has {} bytes instead of {memory}", self.memory());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has no more files open than these: every connection of an attacker is gone.
    pub(crate) async fn files_fall_to(&self, files: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.files() > files {
            assert!(Instant::now() < deadline, "{} files are open instead of {files}", self.files());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets it open no file any more; what is open stays open.
    pub(crate) fn forbid_files(&self) {
        // What is limited is the number that a file gets, which is the lowest that is free.
        let lowest_free = (0..i32::MAX).find(|fd| !self.proc("fd").join(fd.to_string()).is_symlink()).unwrap();
        self.limit_files(lowest_free.try_into().unwrap());
    }

    /// Lets it open as many files as anybody.
    pub(crate) fn allow_files(&self) {
        self.limit_files(getrlimit(Resource::Nofile).current.unwrap());
    }

    fn limit_files(&self, current: u64) {
        // The hard limit is that of this process, from whom it has it.
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// What it answers over plain HTTP, head and all.
    pub(crate) async fn http(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: tidings\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The code and the text of such an answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http(path).await;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), text.to_owned())
    }

    /// The value of one of its numbers; the name with all labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, numbers) = self.get("/metrics").await;
        let value = numbers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in: {numbers}"))
    }

    /// Waits until its health says this of one of its entries, e.g. `postgres SERVING`; returns how long that took.
    pub(crate) async fn until(&self, line: &str) -> Duration {
        let begun = Instant::now();
        while !self.get("/readyz").await.1.lines().any(|entry| entry == line) {
            assert!(begun.elapsed() < 2 * SOON, "not {line}: {}", self.get("/readyz").await.1);
            sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    /// Asks it to stop, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// How it ended, and when; waits up to `patience`.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.process.try_wait().unwrap() {
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                ended => return ended,
            }
        }
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If not, or if something in it has panicked.
    pub(crate) fn assert_is_well(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "{} has ended: {}", self.settings.name, self.log());
        self.assert_did_not_panic();
    }

    /// # Panics
    /// If something in it has.
    pub(crate) fn assert_did_not_panic(&self) {
        let log = self.log();
        let panic = log.lines().find(|line| line.contains("panic"));
        assert_eq!(panic, None);
    }

    /// The name of its database.
    pub(crate) fn database(&self) -> &str {
        &self.settings.place
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string()).join(file)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
