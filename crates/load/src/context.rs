//! The context of a scenario's calls: connections, unique names, and calls without retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidings_client::{Address, Addresses, Credentials, Endpoint, Endpoints, with_timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::call::{BenchCall, CallFailure, CallSlot};

/// Concurrent calls of a preparation.
const PARALLEL: usize = 32;
/// Subscribers per connection: every service accepts at least 192 streams on one.
const SUBSCRIBERS_PER_CONNECTION: u16 = 100;

/// The sizes of the data that a scenario uses.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadShape {
    /// Number of users, conversations or channels over which the calls are spread.
    pub keys: u32,
    /// Size of a message in bytes, at least 16.
    pub size: u16,
    /// Number of items in a batch and of messages in a page.
    pub batch: u16,
    /// Number of subscribers and watchers.
    pub subscribers: u16,
}

impl Default for WorkloadShape {
    fn default() -> Self {
        Self { keys: 1000, size: 100, batch: 100, subscribers: 100 }
    }
}

/// The settings of a scenario: the measured instances, the callers and the data.
#[derive(Clone, Debug)]
pub struct ScenarioSettings {
    /// The instances of the service, used in turn.
    pub addresses: Addresses,
    /// The credentials of the callers, opened for these addresses.
    pub credentials: Credentials,
    /// Number of connections that the callers share, at least 1.
    pub connections: usize,
    /// The sizes of the data.
    pub shape: WorkloadShape,
    /// Number of callers of the run.
    pub callers: usize,
    /// Longest wait for one response; sent to the service as the call's deadline.
    pub timeout: Duration,
}

impl ScenarioSettings {
    /// Default number of connections.
    pub const CONNECTIONS: u16 = 4;
    /// Default of the longest wait for one response.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Returns the settings for this many callers without credentials; the rest has defaults.
    pub fn new(addresses: &Addresses, callers: usize) -> Self {
        Self {
            addresses: addresses.clone(),
            credentials: Credentials::default(),
            connections: Self::CONNECTIONS.into(),
            shape: WorkloadShape::default(),
            callers,
            timeout: Self::TIMEOUT,
        }
    }

    /// Creates connections to the instances in turn; each is opened by its first call, and reopened
    /// if it is lost.
    fn connect(&self, count: usize) -> Vec<Arc<Endpoint>> {
        let connect = |address: &Address| Endpoints::secured(&address.clone().into(), &self.credentials).pick();
        let instances: Vec<_> = self.addresses.iter().collect();
        instances.into_iter().cycle().take(count).map(connect).collect()
    }
}

/// The context that the calls of one run of a scenario share.
pub(crate) struct ScenarioContext {
    /// Connections of the callers.
    pub(crate) connections: Vec<Arc<Endpoint>>,
    /// Connections of the subscribers, opened on first use.
    pub(crate) subscriber_connections: Vec<Arc<Endpoint>>,
    pub(crate) shape: WorkloadShape,
    /// Number of callers of the run.
    pub(crate) callers: usize,
    pub(crate) timeout: Duration,
    /// Prefix of all names that the run creates.
    pub(crate) id_prefix: String,
}

/// Returns a prefix that no other run has.
fn new_id_prefix() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("bench-{}", &id[..12])
}

impl ScenarioContext {
    /// Creates the context of a run; nothing is connected yet.
    pub(crate) fn new(settings: &ScenarioSettings) -> Self {
        let ScenarioSettings { connections, shape, callers, timeout, .. } = *settings;
        Self {
            connections: settings.connect(connections),
            subscriber_connections: settings.connect(shape.subscribers.div_ceil(SUBSCRIBERS_PER_CONNECTION).into()),
            shape,
            callers,
            timeout,
            id_prefix: new_id_prefix(),
        }
    }

    /// Returns a name that only this run uses.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.id_prefix)
    }

    /// Returns the name of a call's key; consecutive calls use consecutive keys.
    pub(crate) fn key(&self, slot: CallSlot) -> String {
        self.id(slot.number % u64::from(self.shape.keys))
    }

    /// Returns a text of the size of a message.
    pub(crate) fn text(&self) -> String {
        "tidings ".chars().cycle().take(self.shape.size.into()).collect()
    }

    /// Returns data of the size of a message.
    pub(crate) fn data(&self) -> Bytes {
        self.text().into()
    }

    /// Returns the numbers of the items of a call's batch.
    pub(crate) fn batch(&self, slot: CallSlot) -> impl Iterator<Item = u64> {
        let size = u64::from(self.shape.batch);
        slot.number * size..(slot.number + 1) * size
    }

    /// Sends a request on the connection of `caller`, without retries, and waits for the response.
    pub(crate) async fn call<Q, A, F>(
        &self,
        caller: usize,
        request: Q,
        send: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, CallFailure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let endpoint = &self.connections[caller % self.connections.len()];
        let mut request = Request::new(request);
        request.set_timeout(self.timeout);
        endpoint.authorize(&mut request);
        Ok(with_timeout(self.timeout, send(endpoint.channel(), request)).await?.into_inner())
    }
}

/// Returns a call of a scenario that passes `context` and the slot to `call`.
///
/// The numbers of the slots continue over several runs: names derived from earlier numbers exist.
pub(crate) fn scenario_call<F>(
    context: &Arc<ScenarioContext>,
    call: impl Fn(Arc<ScenarioContext>, CallSlot) -> F + Send + Sync + 'static,
) -> BenchCall
where
    F: Future<Output = Result<u64, CallFailure>> + Send + 'static,
{
    let (context, next) = (Arc::clone(context), AtomicU64::new(0));
    Arc::new(move |slot| {
        let slot = CallSlot { number: next.fetch_add(1, Ordering::Relaxed), ..slot };
        Box::pin(call(Arc::clone(&context), slot))
    })
}

/// Runs `make` for each number below `count`, some concurrently; returns the results in any order.
///
/// # Errors
/// The first failure of `make`.
pub(crate) async fn prepare_each<T, F>(count: u64, make: impl Fn(CallSlot) -> F) -> Result<Vec<T>, CallFailure>
where
    F: Future<Output = Result<T, CallFailure>>,
{
    let slot = |number| CallSlot { number, caller: usize::try_from(number).unwrap_or(0) };
    stream::iter(0..count).map(|number| make(slot(number))).buffer_unordered(PARALLEL).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn call_numbers_continue_over_several_runs() {
        let context = ScenarioContext::new(&ScenarioSettings::new(&"127.0.0.1:1".parse().unwrap(), 1));
        let call = scenario_call(&Arc::new(context), async |_, slot| Ok(slot.number));

        for number in 0..3 {
            assert_eq!(call(CallSlot { number: 0, caller: 0 }).await, Ok(number));
        }
    }
}
