//! Scenarios of the lock service.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::check_lock_response::State;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{AcquireLockRequest, CheckLockRequest, GetLockRequest, ReleaseLockRequest, RenewLockRequest};

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, prepare_each, scenario_call};

/// Longest wait for a lock that the service allows.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Number of held locks that are read and renewed.
const HELD: u64 = 100;
/// Duration of a lease: longer than most runs.
const LEASE: Duration = Duration::from_mins(5);

/// Acquires a lock that only this caller uses, and releases it.
pub(super) fn acquire_release(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        let name = format!("{}/{}", context.id_prefix, slot.caller);
        let granted = acquire(&context, slot, name.clone(), None).await?;
        release(&context, slot, name, granted).await
    })
}

/// Acquires the lock that all callers want, and releases it.
pub(super) fn hand_over(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        let wait = context.timeout.min(LONGEST_WAIT);
        let granted = acquire(&context, slot, context.id_prefix.clone(), Some(wait)).await?;
        release(&context, slot, context.id_prefix.clone(), granted).await
    })
}

/// Renews a lease.
pub(super) async fn renew(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    let held = held(&context).await?;
    Ok(on_held(&context, held, async |context, slot, name, Granted { lease_id, token, .. }| {
        let request = RenewLockRequest { name, lease_id, token };
        let send = |channel, request| async move { LockServiceClient::new(channel).renew_lock(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    }))
}

/// Checks a fencing token.
pub(super) async fn check(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    let held = held(&context).await?;
    Ok(on_held(&context, held, async |context, slot, name, Granted { token, .. }| {
        let request = CheckLockRequest { name, token };
        let send = |channel, request| async move { LockServiceClient::new(channel).check_lock(request).await };
        match context.call(slot.caller, request, send).await?.state() {
            State::Current => Ok(1),
            state => Err(CallFailure::unexpected(state.as_str_name())),
        }
    }))
}

/// Reads the holder of a lock.
pub(super) async fn get(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    let held = held(&context).await?;
    Ok(on_held(&context, held, async |context, slot, name, _| {
        let send = |channel, request| async move { LockServiceClient::new(channel).get_lock(request).await };
        context.call(slot.caller, GetLockRequest { name }, send).await?;
        Ok(1)
    }))
}

/// Acquires the locks that are read and renewed. They become free when their leases expire.
async fn held(context: &ScenarioContext) -> Result<Arc<[(String, Granted)]>, CallFailure> {
    let take = |slot: CallSlot| async move {
        let name = format!("{}/held/{}", context.id_prefix, slot.number);
        Ok((name.clone(), acquire(context, slot, name, None).await?))
    };
    Ok(prepare_each(HELD, take).await?.into())
}

/// Returns a call that passes the held locks to `call`, one after the other.
fn on_held<F>(
    context: &Arc<ScenarioContext>,
    held: Arc<[(String, Granted)]>,
    call: impl Fn(Arc<ScenarioContext>, CallSlot, String, Granted) -> F + Send + Sync + 'static,
) -> BenchCall
where
    F: Future<Output = Result<u64, CallFailure>> + Send + 'static,
{
    scenario_call(context, move |context, slot| {
        let index = usize::try_from(slot.number).unwrap_or(0) % held.len();
        let (name, granted) = held[index].clone();
        call(context, slot, name, granted)
    })
}

async fn acquire(
    context: &ScenarioContext,
    slot: CallSlot,
    name: String,
    wait: Option<Duration>,
) -> Result<Granted, CallFailure> {
    let ttl = LEASE.try_into().ok();
    let wait = wait.and_then(|wait| wait.try_into().ok());
    let request = AcquireLockRequest { name, owner: context.id_prefix.clone(), ttl, wait, ..Default::default() };
    let send = |channel, request| async move { LockServiceClient::new(channel).acquire_lock(request).await };
    match context.call(slot.caller, request, send).await?.outcome {
        Some(Outcome::Granted(granted)) => Ok(granted),
        Some(Outcome::Held(_)) => Err(CallFailure::unexpected("HELD")),
        Some(Outcome::TimedOut(_)) => Err(CallFailure::unexpected("TIMED_OUT")),
        None => Err(CallFailure::unexpected("no outcome")),
    }
}

async fn release(
    context: &ScenarioContext,
    slot: CallSlot,
    name: String,
    granted: Granted,
) -> Result<u64, CallFailure> {
    use tidings_proto::lock::release_lock_response::Outcome;
    let request = ReleaseLockRequest { name, lease_id: granted.lease_id, token: granted.token };
    let send = |channel, request| async move { LockServiceClient::new(channel).release_lock(request).await };
    match context.call(slot.caller, request, send).await?.outcome() {
        Outcome::Released => Ok(1),
        outcome => Err(CallFailure::unexpected(outcome.as_str_name())),
    }
}
