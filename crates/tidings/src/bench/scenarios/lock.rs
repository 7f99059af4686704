//! The lock service.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::check_lock_response::State;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, CheckLockRequest, GetLockRequest, ReleaseLockRequest, RenewLockRequest};

use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fault, Turn};

/// Longest that a lock can be waited for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Leases that are read and renewed, and how long they last: longer than most runs; each is renewed again and again.
const HELD: u64 = 100;
const LEASE: Duration = Duration::from_mins(5);

/// Takes a lock that is free, since it is the caller's own, and releases it.
pub(super) fn acquire_release(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let name = format!("{}/{}", ground.run, turn.caller);
        let granted = acquire(&ground, turn, name.clone(), None).await?;
        release(&ground, turn, name, granted).await
    })
}

/// Takes a lock that everybody wants, and releases it at once.
pub(super) fn hand_over(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let wait = ground.timeout.min(LONGEST_WAIT);
        let granted = acquire(&ground, turn, ground.run.clone(), Some(wait)).await?;
        release(&ground, turn, ground.run.clone(), granted).await
    })
}

/// Renews a lease.
pub(super) async fn renew(ground: Arc<Ground>) -> Result<Call, Fault> {
    let held = held(&ground).await?;
    Ok(on_held(&ground, held, async |ground, turn, name, Granted { lease_id, token, .. }| {
        let request = RenewLockRequest { name, lease_id, token };
        let send = |channel, request| async move { LockServiceClient::new(channel).renew_lock(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    }))
}

/// Checks a token.
pub(super) async fn check(ground: Arc<Ground>) -> Result<Call, Fault> {
    let held = held(&ground).await?;
    Ok(on_held(&ground, held, async |ground, turn, name, Granted { token, .. }| {
        let request = CheckLockRequest { name, token };
        let send = |channel, request| async move { LockServiceClient::new(channel).check_lock(request).await };
        match ground.ask(turn.caller, request, send).await?.state() {
            State::Current => Ok(1),
            state => Err(Fault::answer(state.as_str_name())),
        }
    }))
}

/// Asks who holds a lock.
pub(super) async fn get(ground: Arc<Ground>) -> Result<Call, Fault> {
    let held = held(&ground).await?;
    Ok(on_held(&ground, held, async |ground, turn, name, _| {
        let send = |channel, request| async move { LockServiceClient::new(channel).get_lock(request).await };
        ground.ask(turn.caller, GetLockRequest { name }, send).await?;
        Ok(1)
    }))
}

/// Takes the locks that are asked about. They are free again when their leases have run out.
async fn held(ground: &Ground) -> Result<Arc<[(String, Granted)]>, Fault> {
    let take = |turn: Turn| async move {
        let name = format!("{}/held/{}", ground.run, turn.number);
        Ok((name.clone(), acquire(ground, turn, name, None).await?))
    };
    Ok(each(HELD, take).await?.into())
}

/// Calls `call` with one of the held locks after the other.
fn on_held<F>(
    ground: &Arc<Ground>,
    held: Arc<[(String, Granted)]>,
    call: impl Fn(Arc<Ground>, Turn, String, Granted) -> F + Send + Sync + 'static,
) -> Call
where
    F: Future<Output = Result<u64, Fault>> + Send + 'static,
{
    calls(ground, move |ground, turn| {
        let place = usize::try_from(turn.number).unwrap_or(0) % held.len();
        let (name, granted) = held[place].clone();
        call(ground, turn, name, granted)
    })
}

async fn acquire(ground: &Ground, turn: Turn, name: String, wait: Option<Duration>) -> Result<Granted, Fault> {
    let ttl = LEASE.try_into().ok();
    let wait = wait.and_then(|wait| wait.try_into().ok());
    let request = AcquireLockRequest { name, owner: ground.run.clone(), ttl, wait, ..Default::default() };
    let send = |channel, request| async move { LockServiceClient::new(channel).acquire_lock(request).await };
    match ground.ask(turn.caller, request, send).await?.outcome {
        Some(Outcome::Granted(granted)) => Ok(granted),
        Some(Outcome::Held(_)) => Err(Fault::answer("HELD")),
        Some(Outcome::TimedOut(_)) => Err(Fault::answer("TIMED_OUT")),
        None => Err(Fault::answer("no outcome")),
    }
}

async fn release(ground: &Ground, turn: Turn, name: String, granted: Granted) -> Result<u64, Fault> {
    use tidings_proto::lock::release_lock_response::Outcome;
    let request = ReleaseLockRequest { name, lease_id: granted.lease_id, token: granted.token };
    let send = |channel, request| async move { LockServiceClient::new(channel).release_lock(request).await };
    match ground.ask(turn.caller, request, send).await?.outcome() {
        Outcome::Released => Ok(1),
        outcome => Err(Fault::answer(outcome.as_str_name())),
    }
}
