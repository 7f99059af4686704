//! Lock under Redis faults: acquires are refused in time with the reason, and fencing tokens grow.

use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, ReleaseLockRequest};
use tidings_status::Failure;
use tonic::Code;
use tonic::transport::Channel;

use super::fault::RedisFault;
use super::{FaultWorkload, own_stack, run_all_faults};
use crate::service::TestService;

/// Lease TTL. After a data loss the quarantine lasts for this long plus a grace period.
const TTL: Duration = Duration::from_secs(1);

struct AcquireWorkload {
    service: TestService,
    locks: LockServiceClient<Channel>,
    /// Number of acquires tried. Each uses its own lock, so that an acquire with unknown outcome
    /// does not block later ones.
    attempts: u64,
    /// Fencing token of the last grant.
    token: i64,
}

impl FaultWorkload for AcquireWorkload {
    const ENTRY: &str = "tidings.lock.v1.LockService";
    const WITHOUT_REDIS: bool = false;
    /// Upper bound of the quarantine for leases of 1 s, and 1 s more.
    const AFTER_LOSS: Duration = Duration::from_secs(1 + 2 + 1);

    fn service(&self) -> &TestService {
        &self.service
    }

    /// Acquires and releases a lock.
    async fn run_once(&mut self) -> Result<(), Failure> {
        self.attempts += 1;
        let name = format!("job/{}", self.attempts);
        let request = AcquireLockRequest {
            name: name.clone(),
            owner: "ada".to_owned(),
            ttl: Some(TTL.try_into().unwrap()),
            ..AcquireLockRequest::default()
        };
        let acquired = self.locks.acquire_lock(request).await.map_err(|status| Failure::from(&status))?;
        let Some(Outcome::Granted(Granted { token, lease_id, .. })) = acquired.into_inner().outcome else {
            panic!("{name} is held, but has no other callers");
        };
        assert!(token > self.token, "{token} after {}", self.token);
        self.token = token;

        let request = ReleaseLockRequest { name, lease_id, token };
        self.locks.release_lock(request).await.map_err(|status| Failure::from(&status))?;
        Ok(())
    }

    fn is_expected_refusal(fault: RedisFault, after: bool, failure: &Failure) -> bool {
        let unavailable = failure.reason == "STATE_AWAY" && (fault.makes_unavailable() || fault == RedisFault::Cut);
        let quarantine =
            failure.reason == "QUARANTINE" && (fault == RedisFault::Flushed || after && fault.loses_data());
        failure.code == Code::Unavailable && failure.retry_after.is_some() && (unavailable || quarantine)
    }

    async fn is_healthy(&mut self) -> bool {
        true
    }

    async fn assert_nothing_lost(&mut self, _: RedisFault) {} // `run_once` checks that tokens grow
}

/// Under every Redis fault, acquires are granted or refused in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_refuses_in_time_and_its_fencing_tokens_grow() {
    let service = TestService::start_on(own_stack().await, "lock", &["--lock-default-ttl", "1s"], &[]).await;
    let workload =
        AcquireWorkload { locks: LockServiceClient::new(service.channel().await), service, attempts: 0, token: 0 };
    run_all_faults(workload.service.stack(), workload).await;
}
