//! Keeps one lane connected, for as long as anybody may use it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Manager, Pool};
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::lane::{Live, OUT_OF_MEMORY, says};
use crate::numbers::Numbers;
use crate::{Error, Lane, Role};

/// The first pause after an attempt to connect failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause: a Redis that is back is used again within so long.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a server is asked whether it is still the one it was, and still takes writes.
const PROBE: Duration = Duration::from_millis(500);
/// How long, in ms, the key stays that a probe writes.
const PROOF_LIFE: u64 = 1000;
/// The oldest Redis we know to work; Valkey begins at 7.2 and says 7.2 here, too.
const MIN_VERSION: (u32, u32) = (7, 0);

/// The place of one lane: connected or not.
#[derive(Debug)]
pub(crate) struct Slot {
    live: watch::Receiver<Option<Arc<Live>>>,
    numbers: Arc<Numbers>,
}

impl Slot {
    /// The lane, if it is connected or becomes so within `patience`.
    pub(crate) async fn lane(&self, patience: Duration) -> Result<Lane, Error> {
        let usable = |live: &Option<Arc<Live>>| live.as_ref().is_some_and(|live| !live.is_broken());
        if let Some(live) = self.live.borrow().as_ref().filter(|live| !live.is_broken()) {
            return Ok(Lane::new(live));
        }
        let mut live = self.live.clone();
        let lane = match timeout(patience, live.wait_for(usable)).await {
            Ok(Ok(connected)) => connected.as_ref().map(Lane::new),
            Ok(Err(_)) | Err(_) => None,
        };
        lane.ok_or_else(|| self.numbers.failed(Error::Away))
    }
}

/// The pool that makes the connections of `lanes` lanes.
pub(crate) fn pool(info: ConnectionInfo, config: AsyncConnectionConfig, lanes: usize) -> Result<Pool, RedisError> {
    let manager = Manager::new_with_config(info, config)?;
    let built = Pool::builder(manager).max_size(lanes).build();
    built.map_err(|_| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no runtime for the pool")))
}

/// How the lanes of one service are made and kept.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) pool: Pool,
    /// `<prefix>:<service>`.
    pub(crate) prefix: Arc<str>,
    pub(crate) role: Role,
    /// How long a new connection may take.
    pub(crate) limit: Duration,
    pub(crate) numbers: Arc<Numbers>,
}

impl Keeper {
    /// Starts to keep a lane.
    pub(crate) fn keep(self, number: u16) -> (Slot, JoinHandle<()>) {
        let (slot, live) = watch::channel(None);
        let numbers = Arc::clone(&self.numbers);
        (Slot { live, numbers }, tokio::spawn(self.run(number, slot)))
    }

    async fn run(self, number: u16, slot: watch::Sender<Option<Arc<Live>>>) {
        let mut pause = PAUSE_MIN;
        let mut said = false;
        loop {
            match self.connect().await {
                Ok(lane) => {
                    tracing::info!(lane = number, reign = lane.reign(), "redis connected");
                    (pause, said) = (PAUSE_MIN, false);
                    self.numbers.connected(lane.reign());
                    let lane = Arc::new(lane);
                    slot.send_replace(Some(Arc::clone(&lane)));
                    let why = tokio::select! {
                        () = lane.broken() => "connection lost or of no use".to_owned(),
                        why = disproved(&lane, &self.prefix, self.role) => why,
                    };
                    lane.give_up();
                    slot.send_replace(None);
                    self.numbers.given_up();
                    tracing::warn!(lane = number, why, "redis given up");
                }
                Err(reason) => {
                    if !said {
                        tracing::warn!(lane = number, reason, "redis is away");
                    }
                    said = true; // once, not as often as we try
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Connects, and learns before the first command whose reign it is.
    async fn connect(&self) -> Result<Live, String> {
        let attempt = async {
            let mut pooled = self.pool.get().await.map_err(|error| error.to_string())?;
            let info = prove(&mut *pooled, &self.prefix, self.role).await.map_err(|error| error.to_string())?;
            check_version(&info)?;
            if self.role == Role::State {
                check_eviction(&info)?;
            }
            let channels: Arc<str> = format!("{}:", self.prefix).into();
            Ok(Live::new(pooled, channels, reign(&info)?.into(), self.role, Arc::clone(&self.numbers)))
        };
        timeout(self.limit, attempt).await.unwrap_or_else(|_| Err("no answer while connecting".to_owned()))
    }
}

/// Asks a server what it is, and lets it prove that it takes writes.
///
/// One that answers reads and refuses writes (out of memory, a snapshot that failed, a replica) would serve what nobody
/// can correct: it counts as away. But what frees a state goes on where memory is short.
async fn prove(connection: &mut impl ConnectionLike, prefix: &str, role: Role) -> Result<String, RedisError> {
    let mut ask = redis::cmd("INFO");
    ask.arg("server").arg("replication").arg("memory");
    let mut prove = redis::cmd("SET");
    prove.arg(format!("{prefix}:proof")).arg("").arg("PX").arg(PROOF_LIFE);
    let answer = redis::pipe().add_command(ask.clone()).add_command(prove).ignore().query_async(connection).await;
    match answer {
        Ok((info,)) => Ok(info),
        Err(error) if role == Role::State && says(&error, OUT_OF_MEMORY) => ask.query_async(connection).await,
        Err(error) => Err(error),
    }
}

/// Returns why a lane is not to be used any more, as soon as a probe shows it: another reign began while the connection
/// stayed, as when a replica is attached or promoted, or writes are refused.
async fn disproved(lane: &Live, prefix: &str, role: Role) -> String {
    loop {
        sleep(PROBE).await;
        match prove(&mut lane.connection(), prefix, role).await {
            Ok(info) if reign(&info).is_ok_and(|now| now == lane.reign()) => {}
            Ok(_) => return "another reign".to_owned(),
            Err(error) if error.is_timeout() => {} // the calls that get no answer are counted, not the probes
            Err(error) => return error.to_string(),
        }
    }
}

/// What names a reign: it changes when a server restarts, with or without its data, and when it is promoted.
fn reign(info: &str) -> Result<&str, String> {
    let id = field(info, "master_replid").and_then(|id| id.get(..10));
    id.ok_or_else(|| "INFO names no master_replid".to_owned())
}

fn check_version(info: &str) -> Result<(), String> {
    let found = field(info, "redis_version").unwrap_or("unknown");
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= MIN_VERSION {
        return Ok(());
    }
    Err(format!("found redis {found}, need 7.0 or newer, or valkey 7.2 or newer"))
}

/// What is nowhere else must not be evicted.
fn check_eviction(info: &str) -> Result<(), String> {
    match (field(info, "maxmemory"), field(info, "maxmemory_policy")) {
        (Some("0"), _) | (_, Some("noeviction") | None) => Ok(()),
        (_, Some(policy)) => Err(format!(
            "found maxmemory-policy {policy}, which lets redis forget what is nowhere else: \
             need noeviction for locks and channels, or a redis of their own"
        )),
    }
}

/// The value of a field of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_named_and_so_is_what_is_needed() {
        assert_eq!(check_version("redis_version:7.0.15\r\n"), Ok(()));
        let refusal = check_version("# Server\r\nredis_version:6.2.7\r\n").unwrap_err();
        assert_eq!(refusal, "found redis 6.2.7, need 7.0 or newer, or valkey 7.2 or newer");
    }

    #[test]
    fn a_server_that_may_evict_keeps_no_state() {
        let memory = |limit, policy| format!("maxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
        assert_eq!(check_eviction(&memory(1_000_000, "noeviction")), Ok(()));
        assert_eq!(check_eviction(&memory(0, "allkeys-lru")), Ok(()));
        assert!(check_eviction(&memory(1_000_000, "allkeys-lru")).unwrap_err().contains("allkeys-lru"));
    }
}
