//! Callers in a closed loop: each sends its next call when the last one has been answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings_proto::lock::GetLockRequest;
use tidings_proto::lock::lock_service_client::LockServiceClient;

use crate::process::ServerProcess;

/// Connections that the callers share.
const CONNECTIONS: usize = 4;

/// Result of one round.
pub(crate) struct LoadRound {
    pub(crate) calls: f64,
    pub(crate) rate: f64,
    /// CPU time of the server per call.
    pub(crate) cost: Duration,
}

impl LoadRound {
    pub(crate) async fn run(server: &ServerProcess, callers: usize, time: Duration) -> Self {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(server.channel().await);
        }
        let calls = Arc::new(AtomicU64::new(0));
        let (begin, cpu) = (Instant::now(), server.cpu());
        let running: Vec<_> = (0..callers)
            .map(|number| {
                let mut client = LockServiceClient::new(channels[number % CONNECTIONS].clone());
                let calls = Arc::clone(&calls);
                tokio::spawn(async move {
                    while begin.elapsed() < time {
                        let _ = client.get_lock(GetLockRequest::default()).await;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for caller in running {
            caller.await.unwrap();
        }
        let (took, spent) = (begin.elapsed(), server.cpu().saturating_sub(cpu));
        let count = u32::try_from(calls.load(Ordering::Relaxed)).unwrap();
        Self { calls: f64::from(count), rate: f64::from(count) / took.as_secs_f64(), cost: spent / count }
    }
}
