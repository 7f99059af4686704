//! Nobody is granted anything meanwhile, callers hear why in time, and tokens grow.

use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, ReleaseLockRequest};
use tidings_status::Failure;
use tonic::Code;
use tonic::transport::Channel;

use super::faults::Fault;
use super::{Job, own_stack, through_all};
use crate::service::Service;

/// How long leases last; after a loss nobody is granted anything for so long and a grace.
const TTL: Duration = Duration::from_secs(1);

struct Holder {
    service: Service,
    locks: LockServiceClient<Channel>,
    /// How many acquires were tried: each has a lock of its own, so that none meets one that got no answer.
    tried: u64,
    /// The token that was granted last.
    token: i64,
}

impl Job for Holder {
    const ENTRY: &str = "tidings.lock.v1.LockService";
    const WITHOUT_REDIS: bool = false;
    /// The quarantine of leases of a second, and one more.
    const AFTER_LOSS: Duration = Duration::from_secs(1 + 2 + 1);

    fn service(&self) -> &Service {
        &self.service
    }

    /// An acquire and a release.
    async fn work(&mut self) -> Result<(), Failure> {
        self.tried += 1;
        let name = format!("job/{}", self.tried);
        let request = AcquireLockRequest {
            name: name.clone(),
            owner: "ada".to_owned(),
            ttl: Some(TTL.try_into().unwrap()),
            ..AcquireLockRequest::default()
        };
        let acquired = self.locks.acquire_lock(request).await.map_err(|status| Failure::from(&status))?;
        let Some(Outcome::Granted(Granted { token, lease_id, .. })) = acquired.into_inner().outcome else {
            panic!("nobody else wants {name}");
        };
        assert!(token > self.token, "{token} after {}", self.token);
        self.token = token;

        let request = ReleaseLockRequest { name, lease_id, token };
        self.locks.release_lock(request).await.map_err(|status| Failure::from(&status))?;
        Ok(())
    }

    fn may_refuse(fault: Fault, after: bool, failure: &Failure) -> bool {
        let away = failure.reason == "STATE_AWAY" && (fault.takes_away() || fault == Fault::Cut);
        let quarantine = failure.reason == "QUARANTINE" && (fault == Fault::Flushed || after && fault.loses_data());
        failure.code == Code::Unavailable && failure.retry_after.is_some() && (away || quarantine)
    }

    async fn is_well(&mut self) -> bool {
        true
    }

    async fn account(&mut self, _: Fault) {} // that tokens grow is seen with each grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_refuses_in_time_and_its_tokens_grow_whatever_happens_to_redis() {
    let service = Service::on(own_stack().await, "lock", &["--lock-default-ttl", "1s"], &[]).await;
    let holder = Holder { locks: LockServiceClient::new(service.channel().await), service, tried: 0, token: 0 };
    through_all(holder.service.stack(), holder).await;
}
