//! The kinds of Redis faults, and how to cause and end each of them.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use tidings_devstack::Devstack;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisFault {
    /// SIGSTOP: connections stay open, Redis does not reply.
    Stopped,
    /// FLUSHALL: all keys are deleted, Redis keeps running.
    Flushed,
    /// Redis rejects writes because `maxmemory` is reached.
    OutOfMemory,
    /// All connections are closed, and new ones exceed `maxclients`.
    OutOfClients,
    /// All connections are closed every 100 ms.
    Cut,
    /// SIGKILL: Redis restarts without data.
    Killed,
}

impl RedisFault {
    pub(super) const ALL: [Self; 6] =
        [Self::Stopped, Self::Flushed, Self::OutOfMemory, Self::OutOfClients, Self::Cut, Self::Killed];

    /// Returns true if Redis is unavailable during the fault.
    pub(super) fn makes_unavailable(self) -> bool {
        matches!(self, Self::Stopped | Self::OutOfMemory | Self::OutOfClients | Self::Killed)
    }

    /// Returns true if Redis loses its data.
    pub(super) fn loses_data(self) -> bool {
        matches!(self, Self::Flushed | Self::Killed)
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Flushed => "flushed",
            Self::OutOfMemory => "out of memory",
            Self::OutOfClients => "out of clients",
            Self::Cut => "cutting every connection every 100 ms",
            Self::Killed => "killed",
        })
    }
}

/// A fault in progress.
pub(super) struct ActiveFault {
    stack: &'static Devstack,
    fault: RedisFault,
    /// Connection opened before the fault; ends it.
    operator: Option<MultiplexedConnection>,
    closer: Option<JoinHandle<()>>,
}

impl ActiveFault {
    pub(super) async fn begin(stack: &'static Devstack, fault: RedisFault) -> Self {
        let client = redis::Client::open(stack.redis().url()).unwrap();
        let mut operator = client.get_multiplexed_async_connection().await.unwrap();
        let mut active = Self { stack, fault, operator: None, closer: None };
        match fault {
            RedisFault::Stopped => stack.redis().pause(),
            RedisFault::Killed => stack.redis().kill().await,
            RedisFault::Flushed => cmd("FLUSHALL").exec_async(&mut operator).await.unwrap(),
            RedisFault::OutOfMemory => config_set(&mut operator, "maxmemory", 1).await,
            RedisFault::OutOfClients => {
                config_set(&mut operator, "maxclients", 1).await;
                close_all_connections(&mut operator).await;
            }
            RedisFault::Cut => {
                let mut operator = operator.clone();
                active.closer = Some(tokio::spawn(async move {
                    loop {
                        close_all_connections(&mut operator).await;
                        sleep(Duration::from_millis(100)).await;
                    }
                }));
            }
        }
        active.operator = Some(operator);
        active
    }

    pub(super) async fn end(&mut self) {
        let operator = self.operator.as_mut().unwrap();
        match self.fault {
            RedisFault::Stopped => self.stack.redis().resume(),
            RedisFault::Killed => self.stack.redis().start().await.unwrap(),
            RedisFault::Flushed => {}
            RedisFault::OutOfMemory => config_set(operator, "maxmemory", 0).await,
            RedisFault::OutOfClients => config_set(operator, "maxclients", 10_000).await,
            RedisFault::Cut => self.closer.take().unwrap().abort(),
        }
    }
}

async fn config_set(operator: &mut MultiplexedConnection, name: &str, value: u64) {
    cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(operator).await.unwrap();
}

/// Closes all connections except this one.
async fn close_all_connections(operator: &mut MultiplexedConnection) {
    for kind in ["normal", "pubsub"] {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec_async(operator).await.unwrap();
    }
}
