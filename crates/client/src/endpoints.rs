//! The instances of a service, with the connections to each and outlier ejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_status::Failure;
use tidings_trace::TraceParent;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::{self, Channel};

use crate::address::{Address, Addresses};
use crate::attempt::is_instance_failure;
use crate::channel_pools::{CallClass, ChannelPools, ChannelSlot, ConnectFn};
use crate::credentials::Credentials;
use crate::trace::in_trace;

/// Timeout of a connect. A service that starts more slowly gets later calls.
const CONNECT: Duration = Duration::from_secs(2);
/// Interval of HTTP/2 keep-alive pings on a connection in use.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Time without a reply to a ping after which a connection is closed: detects a hung service.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Receive window of a connection in bytes.
///
/// It is large so that one stream that is not read does not stall the other streams of its
/// connection. Only the receiver can prevent that.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Receive window of a stream in bytes: eight of the largest frames of a subscription.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Calls given up whose late responses a connection still recognizes. A response to a call that is
/// forgotten counts as an error of the protocol, although many calls may be given up together.
const REMEMBERED_CALLS: usize = 4096;
/// Time for which a failed instance is skipped, so that not every call has to fail on it first.
const EJECTION: Duration = Duration::from_secs(1);
/// Longest ejection that an instance can demand by a Goodbye.
const EJECTION_MAX: Duration = Duration::from_mins(1);

/// The instances of one service. Cheap to clone; clones share the connections and the ejections.
///
/// Instances are picked round-robin. An instance that does not respond or is draining is ejected
/// for a second; then one call probes it. When all are ejected, all are picked again, since no
/// other choice is left.
///
/// tonic's `Channel::balance_list` drops an endpoint whose connection failed and never tries it
/// again.
#[derive(Clone, Debug)]
pub struct Endpoints {
    all: Arc<[Arc<Endpoint>]>,
    next: Arc<AtomicUsize>,
}

/// One instance of a service: its address and its connections.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    pools: ChannelPools,
    credentials: Credentials,
    /// End of the ejection; `None` if the instance responded since.
    ejected_until: Mutex<Option<Instant>>,
}

impl Endpoints {
    /// The instances at `addresses`. A call connects if there is no connection.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the connections live.
    pub fn new(addresses: &Addresses) -> Self {
        Self::secured(addresses, &Credentials::default())
    }

    /// The instances at `addresses`, with credentials that were opened for the same addresses.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the connections live.
    pub fn secured(addresses: &Addresses, credentials: &Credentials) -> Self {
        let runtime = Handle::current();
        Self::of(addresses.iter().map(|address| {
            let (credentials, settings, runtime) = (credentials.clone(), settings(address), runtime.clone());
            let connecting = credentials.clone();
            let connect = move || {
                let _entered = runtime.enter();
                connecting.channel(&settings)
            };
            Endpoint { credentials, ..Endpoint::new(address.clone(), Box::new(connect)) }
        }))
    }

    pub(crate) fn of(all: impl Iterator<Item = Endpoint>) -> Self {
        let all: Arc<[_]> = all.map(Arc::new).collect();
        // Clients that start together must not all begin with the same instance.
        let next = Arc::new(AtomicUsize::new(rand::random_range(0..all.len().max(1))));
        Self { all, next }
    }

    /// Returns the next instance that is not ejected.
    pub fn pick(&self) -> Arc<Endpoint> {
        self.pick_other_than(None)
    }

    /// Returns the next instance that is not ejected; `last` only if all others are ejected.
    pub(crate) fn pick_other_than(&self, last: Option<&Arc<Endpoint>>) -> Arc<Endpoint> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let is_last = |endpoint: &&Arc<Endpoint>| last.is_some_and(|last| Arc::ptr_eq(last, endpoint));
        let in_turn = || (0..self.all.len()).map(|offset| &self.all[first.wrapping_add(offset) % self.all.len()]);
        let picked = in_turn()
            .filter(|endpoint| !is_last(endpoint))
            .find(|endpoint| endpoint.try_admit(now))
            .or_else(|| last.filter(|last| last.try_admit(now)))
            .or_else(|| in_turn().find(|endpoint| !is_last(endpoint)))
            .unwrap_or_else(|| &self.all[0]);
        Arc::clone(picked)
    }
}

impl Endpoint {
    pub(crate) fn new(address: Address, connect: ConnectFn) -> Self {
        let pools = ChannelPools::new(connect);
        Self { address, pools, credentials: Credentials::default(), ejected_until: Mutex::new(None) }
    }

    /// Returns the address of the instance.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Adds the bearer token and the current trace to a request, unless it carries them already.
    pub fn authorize<T>(&self, request: &mut Request<T>) {
        self.credentials.authorize(request);
        if let Some(current) = TraceParent::current().filter(|_| !request.metadata().contains_key(TraceParent::HEADER))
        {
            in_trace(request, current);
        }
    }

    /// Returns a connection for short calls, for generated clients. It is for few concurrent calls,
    /// which it does not count.
    pub fn channel(&self) -> Channel {
        self.channel_for(CallClass::Short).channel()
    }

    /// Returns a connection with room for a call of this class. Opens another one if all are full.
    pub fn channel_for(&self, class: CallClass) -> ChannelSlot {
        self.pools.take(class)
    }

    /// Ejects the instance if `failure` is its own; otherwise it has responded.
    pub(crate) fn record_failure(&self, failure: &Failure) {
        if is_instance_failure(failure) { self.eject() } else { self.record_success() }
    }

    /// Ejects the instance for a second.
    pub(crate) fn eject(&self) {
        self.eject_for(None);
    }

    /// Ejects the instance for `time`, clamped to 1 s to 60 s; for 1 s without a time.
    pub(crate) fn eject_for(&self, time: Option<Duration>) {
        self.set_ejected_until(Some(Instant::now() + time.map_or(EJECTION, |time| time.clamp(EJECTION, EJECTION_MAX))));
    }

    /// Ends the ejection, because the instance responded.
    pub(crate) fn record_success(&self) {
        self.set_ejected_until(None);
    }

    fn set_ejected_until(&self, time: Option<Instant>) {
        *self.ejected_until.lock() = time;
    }

    /// Returns true if a call may use the instance.
    ///
    /// After an ejection, the first caller probes the instance; the others skip it for another
    /// second.
    fn try_admit(&self, now: Instant) -> bool {
        let mut ejected_until = self.ejected_until.lock();
        match *ejected_until {
            Some(end) if now < end => return false,
            Some(_) => *ejected_until = Some(now + EJECTION),
            None => {}
        }
        true
    }
}

/// Settings of every connection.
pub(crate) fn settings(address: &Address) -> transport::Endpoint {
    Channel::builder(address.uri().clone())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .http2_max_concurrent_reset_streams(REMEMBERED_CALLS)
        .http2_max_local_error_reset_streams(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::advance;

    use super::*;

    fn endpoints(addresses: &str) -> Endpoints {
        Endpoints::new(&addresses.parse().unwrap())
    }

    /// Picks `times` times. Returns the number of picks by address.
    fn picks(endpoints: &Endpoints, times: usize) -> BTreeMap<String, usize> {
        let mut picks = BTreeMap::new();
        for _ in 0..times {
            *picks.entry(endpoints.pick().address().to_string()).or_default() += 1;
        }
        picks
    }

    #[tokio::test]
    async fn instances_are_picked_round_robin() {
        let picks = picks(&endpoints("a:1,b:1,c:1"), 30);

        assert_eq!(picks.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    }

    /// It is skipped for a second, then gets one call, and its full share after a response.
    #[tokio::test(start_paused = true)]
    async fn an_ejected_instance_is_probed_once_and_readmitted() {
        let endpoints = endpoints("a:1,b:1");
        let failed = endpoints.pick();
        let address = failed.address().to_string();

        failed.eject();
        assert_eq!(picks(&endpoints, 10).get(&address), None);

        advance(EJECTION).await;
        assert_eq!(picks(&endpoints, 10)[&address], 1);

        failed.record_success();
        assert_eq!(picks(&endpoints, 10)[&address], 5);
    }

    #[tokio::test]
    async fn when_all_are_ejected_all_are_picked_again() {
        let endpoints = endpoints("a:1,b:1");
        for endpoint in endpoints.all.iter() {
            endpoint.eject();
        }

        assert_eq!(picks(&endpoints, 10).into_values().collect::<Vec<_>>(), [5, 5]);
    }

    /// The last instance is picked again if it is the only one, or if all others are ejected.
    #[tokio::test]
    async fn a_retry_prefers_an_instance_other_than_the_last() {
        let (two, one) = (endpoints("a:1,b:1"), endpoints("a:1"));
        let (last, only) = (two.pick(), one.pick());

        for _ in 0..5 {
            assert_ne!(two.pick_other_than(Some(&last)).address(), last.address());
            assert_eq!(one.pick_other_than(Some(&only)).address(), only.address());
        }

        two.pick_other_than(Some(&last)).eject();
        assert_eq!(two.pick_other_than(Some(&last)).address(), last.address());
    }
}
