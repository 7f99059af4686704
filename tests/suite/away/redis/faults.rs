//! The ways in which a Redis is hurt.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use tidings_devstack::Devstack;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGSTOP: connections stay, nothing is answered.
    Stopped,
    /// It forgets everything, at once.
    Flushed,
    /// It has no memory for anything new.
    OutOfMemory,
    /// Every connection is closed, and there is no place for another.
    OutOfClients,
    /// Every connection is closed every 100 ms.
    Cut,
    /// SIGKILL: it comes back empty.
    Killed,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::Stopped, Self::Flushed, Self::OutOfMemory, Self::OutOfClients, Self::Cut, Self::Killed];

    /// Whether there is no Redis to speak of meanwhile.
    pub(super) fn takes_away(self) -> bool {
        matches!(self, Self::Stopped | Self::OutOfMemory | Self::OutOfClients | Self::Killed)
    }

    /// Whether what it held is gone.
    pub(super) fn loses_data(self) -> bool {
        matches!(self, Self::Flushed | Self::Killed)
    }
}

impl fmt::Display for Fault {
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

/// A Redis that is hurt.
pub(super) struct Hurt {
    stack: &'static Devstack,
    fault: Fault,
    /// A connection from before, where one is needed to heal it.
    operator: Option<MultiplexedConnection>,
    cutting: Option<JoinHandle<()>>,
}

impl Hurt {
    pub(super) async fn inflict(stack: &'static Devstack, fault: Fault) -> Self {
        let client = redis::Client::open(stack.redis().url()).unwrap();
        let mut operator = client.get_multiplexed_async_connection().await.unwrap();
        let mut hurt = Self { stack, fault, operator: None, cutting: None };
        match fault {
            Fault::Stopped => stack.redis().pause(),
            Fault::Killed => stack.redis().kill().await,
            Fault::Flushed => cmd("FLUSHALL").exec_async(&mut operator).await.unwrap(),
            Fault::OutOfMemory => set(&mut operator, "maxmemory", 1).await,
            Fault::OutOfClients => {
                set(&mut operator, "maxclients", 1).await;
                cut_all(&mut operator).await;
            }
            Fault::Cut => {
                let mut operator = operator.clone();
                hurt.cutting = Some(tokio::spawn(async move {
                    loop {
                        cut_all(&mut operator).await;
                        sleep(Duration::from_millis(100)).await;
                    }
                }));
            }
        }
        hurt.operator = Some(operator);
        hurt
    }

    pub(super) async fn heal(&mut self) {
        let operator = self.operator.as_mut().unwrap();
        match self.fault {
            Fault::Stopped => self.stack.redis().resume(),
            Fault::Killed => self.stack.redis().start().await.unwrap(),
            Fault::Flushed => {}
            Fault::OutOfMemory => set(operator, "maxmemory", 0).await,
            Fault::OutOfClients => set(operator, "maxclients", 10_000).await,
            Fault::Cut => self.cutting.take().unwrap().abort(),
        }
    }
}

async fn set(operator: &mut MultiplexedConnection, name: &str, value: u64) {
    cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(operator).await.unwrap();
}

/// Closes all connections but this.
async fn cut_all(operator: &mut MultiplexedConnection) {
    for kind in ["normal", "pubsub"] {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec_async(operator).await.unwrap();
    }
}
