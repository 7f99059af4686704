//! One service as a child of this program.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tidings_devstack::Devstack;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use super::{Error, Patience, Place, Stop};

/// How long a service may take to answer after its start; migrations are part of it.
const START: Duration = Duration::from_secs(30);
/// How long the services may take to end: their drain time and a little.
const END: Duration = Duration::from_secs(25);
/// How often we ask.
const LOOK: Duration = Duration::from_millis(50);

/// All services.
pub(super) struct Services(Vec<Service>);

/// One service.
pub(super) struct Service {
    name: &'static str,
    address: SocketAddr,
    log: PathBuf,
    variables: Vec<(&'static str, String)>,
    /// What only its first process hears.
    once: Vec<(&'static str, String)>,
    child: Option<Child>,
    patience: Patience,
}

impl Services {
    /// Starts them all on a stack; the port of a service's metrics is `metrics` above its own.
    pub(super) fn start(stack: &Devstack, places: &[Place], metrics: Option<u16>) -> Result<Self, Error> {
        let mut services = Self(Vec::new());
        for (name, address) in places {
            let mut variables = vec![
                ("TIDINGS_LISTEN", address.to_string()),
                ("TIDINGS_MIGRATE", "true".to_owned()),
                ("TIDINGS_LAME_DUCK", "0s".to_owned()), // nobody here has to hear of the end first
                ("TIDINGS_POSTGRES_URL", stack.postgres().url(&format!("tidings_{name}"))),
                ("TIDINGS_REDIS_URL", stack.redis().url()),
            ];
            if let Some(above) = metrics {
                let address = SocketAddr::new(address.ip(), address.port() + above);
                variables.push(("TIDINGS_ADMIN_LISTEN", address.to_string()));
            }
            variables.extend(peers(name, places));
            // Whoever held a lock of an earlier run has died with it: nobody has to wait for the end of its lease.
            let once = vec![("TIDINGS_LOCK_FRESH_START", "true".to_owned())];
            let log = stack.dir().join(format!("{name}.log"));
            let patience = Patience::default();
            let mut service = Service { name, address: *address, log, variables, once, child: None, patience };
            service.start()?;
            services.0.push(service);
        }
        Ok(services)
    }

    /// Waits until all of them answer.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        for service in &mut self.0 {
            service.ready().await?;
        }
        Ok(())
    }

    /// Each of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.0.iter_mut()
    }

    /// Ends them in order; at once if that takes too long, or if the wish to stop is repeated.
    pub(super) async fn stop(mut self, stop: &mut Stop) {
        for service in &self.0 {
            service.signal(Signal::TERM);
        }
        let ended = async {
            while self.0.iter_mut().any(Service::running) {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            _ = timeout(END, ended) => {}
            () = stop.asked() => {}
        }
    }
}

impl Service {
    /// Which.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let failed =
            |cause: io::Error| Error::Service { service: self.name, reason: cause.to_string(), log: self.log.clone() };
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["serve", self.name, "--stop-with-stdin"])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(self.once.drain(..))
            .stdin(Stdio::piped()) // we hold the other end: it ends when we do, however we end
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0) // Ctrl-C is for us: we tell the services
            .spawn()
            .map_err(failed)?;
        self.child = Some(child);
        Ok(())
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Some(status),
            _ => None,
        }
    }

    /// The pause before it is started again.
    pub(super) fn pause(&mut self) -> Duration {
        self.patience.next_pause()
    }

    fn running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits until it answers.
    async fn ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        loop {
            if self.ended().is_some() {
                return Err(self.failed(last_words(&self.log)));
            }
            if serves(self.address).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("no answer within {} s", START.as_secs())));
            }
            sleep(LOOK).await;
        }
    }

    fn failed(&self, reason: String) -> Error {
        Error::Service { service: self.name, reason, log: self.log.clone() }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a service has to know of the others: history publishes to broadcast.
fn peers(name: &str, places: &[Place]) -> Option<(&'static str, String)> {
    let broadcast = places.iter().find(|(other, _)| *other == "broadcast" && name == "history");
    broadcast.map(|(_, address)| ("TIDINGS_BROADCAST_ADDR", address.to_string()))
}

/// Whether the service at this address says that it serves.
async fn serves(address: SocketAddr) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let asked = async {
        let mut health = HealthClient::new(endpoint.connect().await.ok()?);
        let answer = health.check(HealthCheckRequest::default()).await.ok()?;
        Some(answer.into_inner().status() == ServingStatus::Serving)
    };
    timeout(Duration::from_secs(1), asked).await.ok().flatten().unwrap_or(false)
}

/// The reason that the last line of a log gives: of our JSON the error, of anything else all of it.
fn last_words(path: &Path) -> String {
    const TAIL: u64 = 4096;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).lines().next_back().unwrap_or("no word").to_owned())
    };
    let line = read().unwrap_or_else(|error| format!("no log: {error}"));
    let logged: Option<serde_json::Value> = serde_json::from_str(&line).ok();
    let error = logged.as_ref().and_then(|line| line["error"].as_str());
    error.map_or(line.clone(), str::to_owned)
}
