//! The services as child processes of this program.

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

use super::backoff::RestartBackoff;
use super::error::Error;
use super::stop_signals::StopSignals;

/// Maximum time from the start of a service until it serves, migrations included.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time for the services to stop: their drain time and a margin.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// Interval between two polls of a service that starts or stops.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Name of a service and its listen address.
pub(super) type ServiceAddress = (&'static str, SocketAddr);

/// The child processes of all services.
pub(super) struct ChildServices(Vec<ChildService>);

/// One service and its process.
pub(super) struct ChildService {
    name: &'static str,
    address: SocketAddr,
    log: PathBuf,
    variables: Vec<(&'static str, String)>,
    /// Variables for its first process only.
    first_start_variables: Vec<(&'static str, String)>,
    child: Option<Child>,
    backoff: RestartBackoff,
}

impl ChildServices {
    /// Starts all services on a stack. `metrics` is the offset from the port of a service to the
    /// port of its metrics; without it, there are no metrics ports.
    pub(super) fn start(stack: &Devstack, addresses: &[ServiceAddress], metrics: Option<u16>) -> Result<Self, Error> {
        let mut services = Self(Vec::new());
        for (name, address) in addresses {
            let mut variables = vec![
                ("TIDINGS_LISTEN", address.to_string()),
                ("TIDINGS_MIGRATE", "true".to_owned()),
                ("TIDINGS_LAME_DUCK", "0s".to_owned()), // no load balancer here
                ("TIDINGS_POSTGRES_URL", stack.postgres().url(&format!("tidings_{name}"))),
                ("TIDINGS_REDIS_URL", stack.redis().url()),
            ];
            if let Some(offset) = metrics {
                let address = SocketAddr::new(address.ip(), address.port() + offset);
                variables.push(("TIDINGS_ADMIN_LISTEN", address.to_string()));
            }
            variables.extend(peers(name, addresses));
            // Lock holders of an earlier run ended with it: their leases need no quarantine.
            let first_start_variables = vec![("TIDINGS_LOCK_FRESH_START", "true".to_owned())];
            let log = stack.dir().join(format!("{name}.log"));
            let backoff = RestartBackoff::default();
            let mut service =
                ChildService { name, address: *address, log, variables, first_start_variables, child: None, backoff };
            service.start()?;
            services.0.push(service);
        }
        Ok(services)
    }

    /// Waits until all services serve.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        for service in &mut self.0 {
            service.ready().await?;
        }
        Ok(())
    }

    /// Iterates over the services.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ChildService> {
        self.0.iter_mut()
    }

    /// Stops the services gracefully. Kills them after [`STOP_TIMEOUT`], or at a second stop
    /// signal.
    pub(super) async fn stop(mut self, stop: &mut StopSignals) {
        for service in &self.0 {
            service.signal(Signal::TERM);
        }
        let exited = async {
            while self.0.iter_mut().any(ChildService::running) {
                sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            _ = timeout(STOP_TIMEOUT, exited) => {}
            () = stop.received() => {}
        }
    }
}

impl ChildService {
    /// Returns its name, e.g. `user`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Starts its process.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let failed =
            |cause: io::Error| Error::Service { service: self.name, reason: cause.to_string(), log: self.log.clone() };
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["serve", self.name, "--stop-with-stdin"])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(self.first_start_variables.drain(..))
            .stdin(Stdio::piped()) // closes with this process, which stops the service
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0) // Ctrl-C reaches this process only, which stops the services
            .spawn()
            .map_err(failed)?;
        self.child = Some(child);
        Ok(())
    }

    /// Returns its exit status if its process exited.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Some(status),
            _ => None,
        }
    }

    /// Returns the delay before its next restart.
    pub(super) fn restart_delay(&mut self) -> Duration {
        self.backoff.next_delay()
    }

    fn running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits until it serves.
    async fn ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if self.exit_status().is_some() {
                return Err(self.failed(last_error(&self.log)));
            }
            if serves(self.address).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("not serving within {} s", START_TIMEOUT.as_secs())));
            }
            sleep(POLL_INTERVAL).await;
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

impl Drop for ChildService {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the variable with the address of a service's peer: history publishes to broadcast.
fn peers(name: &str, addresses: &[ServiceAddress]) -> Option<(&'static str, String)> {
    let broadcast = addresses.iter().find(|(other, _)| *other == "broadcast" && name == "history");
    broadcast.map(|(_, address)| ("TIDINGS_BROADCAST_ADDR", address.to_string()))
}

/// Returns whether the health check of the service at this address reports SERVING.
async fn serves(address: SocketAddr) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let check = async {
        let mut health = HealthClient::new(endpoint.connect().await.ok()?);
        let response = health.check(HealthCheckRequest::default()).await.ok()?;
        Some(response.into_inner().status() == ServingStatus::Serving)
    };
    timeout(Duration::from_secs(1), check).await.ok().flatten().unwrap_or(false)
}

/// Returns the `error` field of the last line of a log if the line is JSON, else the whole line.
fn last_error(path: &Path) -> String {
    const TAIL: u64 = 4096;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).lines().next_back().unwrap_or("its log is empty").to_owned())
    };
    let line = read().unwrap_or_else(|error| format!("its log cannot be read: {error}"));
    let logged: Option<serde_json::Value> = serde_json::from_str(&line).ok();
    let error = logged.as_ref().and_then(|line| line["error"].as_str());
    error.map_or(line.clone(), str::to_owned)
}
