//! What scenarios stand on: connections, names that nobody else uses, and calls without repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidings_client::{Address, Addresses, Endpoint, within};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::credentials;
use crate::load::{Call, Fault, Turn};

/// Preparations under way at once.
const PARALLEL: usize = 32;
/// Subscribers that share a connection: a server takes 256 streams of one.
const LISTENERS: u16 = 100;

/// How large what is called is.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Size")]
pub(super) struct Shape {
    /// Users, conversations or channels that the calls are spread over
    #[arg(long, value_name = "N", default_value_t = Self::default().keys, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) keys: u32,

    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = Self::default().size, value_parser = clap::value_parser!(u16).range(16..=32_768))]
    pub(super) size: u16,

    /// Items of a batch, and messages of a page
    #[arg(long, value_name = "N", default_value_t = Self::default().batch, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) batch: u16,

    /// Subscribers of the scenario `subscribe`, watchers of `watch-users`
    #[arg(long, value_name = "N", default_value_t = Self::default().subscribers, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub(super) subscribers: u16,
}

impl Default for Shape {
    fn default() -> Self {
        Self { keys: 1000, size: 100, batch: 100, subscribers: 100 }
    }
}

impl Shape {
    /// How many connections its subscribers need.
    pub(super) fn listening_connections(&self) -> usize {
        self.subscribers.div_ceil(LISTENERS).into()
    }
}

/// What the calls of one run of a scenario share.
pub(super) struct Ground {
    /// Those that callers share.
    pub(super) connections: Vec<Arc<Endpoint>>,
    /// Those that subscribers share, connected when they are used.
    pub(super) listeners: Vec<Arc<Endpoint>>,
    pub(super) shape: Shape,
    /// How many callers there will be.
    pub(super) callers: usize,
    pub(super) timeout: Duration,
    /// What its names begin with.
    pub(super) run: String,
}

/// A name for a run that no other has.
pub(super) fn new_run() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("bench-{}", &id[..12])
}

/// Opens connections to the instances in turn; each is made by its first call, and anew if it was lost.
///
/// # Errors
/// The credentials can not be used.
pub(super) fn connect(
    addresses: &Addresses,
    credentials: &credentials::Args,
    count: usize,
) -> Result<Vec<Arc<Endpoint>>, credentials::Unusable> {
    let connect = |address: &Address| Ok(credentials.endpoints(&address.clone().into())?.pick());
    let instances: Vec<_> = addresses.iter().collect();
    instances.into_iter().cycle().take(count).map(connect).collect()
}

impl Ground {
    /// A name that only this run uses.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The name of the key whose turn it is.
    pub(super) fn key(&self, turn: Turn) -> String {
        self.id(turn.number % u64::from(self.shape.keys))
    }

    /// A text as long as a message.
    pub(super) fn text(&self) -> String {
        "tidings ".chars().cycle().take(self.shape.size.into()).collect()
    }

    /// The same as data.
    pub(super) fn data(&self) -> Bytes {
        self.text().into()
    }

    /// The numbers of the items of a batch.
    pub(super) fn batch(&self, turn: Turn) -> impl Iterator<Item = u64> {
        let size = u64::from(self.shape.batch);
        turn.number * size..(turn.number + 1) * size
    }

    /// Sends a request once on the connection of a caller, and waits for the answer.
    pub(super) async fn ask<Q, A, F>(
        &self,
        caller: usize,
        request: Q,
        send: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, Fault>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let endpoint = &self.connections[caller % self.connections.len()];
        let mut request = Request::new(request);
        request.set_timeout(self.timeout);
        endpoint.authorize(&mut request);
        Ok(within(self.timeout, send(endpoint.channel(), request)).await?.into_inner())
    }
}

/// What a scenario calls: `call` on its ground. It may run more than once: its numbers go on, since what was created under a
/// number is there.
pub(super) fn calls<F>(ground: &Arc<Ground>, call: impl Fn(Arc<Ground>, Turn) -> F + Send + Sync + 'static) -> Call
where
    F: Future<Output = Result<u64, Fault>> + Send + 'static,
{
    let (ground, next) = (Arc::clone(ground), AtomicU64::new(0));
    Arc::new(move |turn| {
        let turn = Turn { number: next.fetch_add(1, Ordering::Relaxed), ..turn };
        Box::pin(call(Arc::clone(&ground), turn))
    })
}

/// Does something for each number below `count`, some at a time, and keeps what it gives, in any order.
///
/// # Errors
/// The first fault.
pub(super) async fn each<T, F>(count: u64, make: impl Fn(Turn) -> F) -> Result<Vec<T>, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    let turn = |number| Turn { number, caller: usize::try_from(number).unwrap_or(0) };
    stream::iter(0..count).map(|number| make(turn(number))).buffer_unordered(PARALLEL).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scenario_that_runs_again_goes_on_with_its_numbers() {
        let (connections, listeners) = (Vec::new(), Vec::new());
        let timeout = Duration::from_secs(1);
        let ground = Ground { connections, listeners, shape: Shape::default(), callers: 1, timeout, run: new_run() };
        let call = calls(&Arc::new(ground), async |_, turn| Ok(turn.number));

        for number in 0..3 {
            assert_eq!(call(Turn { number: 0, caller: 0 }).await, Ok(number));
        }
    }
}
