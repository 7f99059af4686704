//! The instances of a service, one connection to each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_status::Failure;
use tidings_trace::TraceParent;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::{self, Channel};

use crate::address::{Address, Addresses};
use crate::attempt::instance_is_out;
use crate::credentials::Credentials;
use crate::trace::in_trace;

/// How long a connection may take to be made: a service on the way up answers later calls.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection in use is asked for a sign of life this often, ...
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// ... and given up after this long without one: a service that hangs is noticed although its socket stays open.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What may be under way to us on one connection: so much that a stream which is not read for a while does not stall the
/// other streams of its connection. No server can prevent that; it is the reader's window.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// What may be under way on one stream: eight of the largest frames of a subscription.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// How long an instance that is out is left alone, so that not every call has to find out anew.
const REST: Duration = Duration::from_secs(1);
/// The longest that an instance can ask to be left alone.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// The instances of one service. Cheap to clone; clones share the connections and what is known of the instances.
///
/// They take turns. An instance that is out (it does not answer, or said that it shuts down) is passed over for a second,
/// then one call looks whether it is back. When all are out, they take turns again: nothing is gained by not trying.
///
/// It is not tonic's `Channel::balance_list`: that one drops an endpoint whose connection failed, and never looks again.
#[derive(Clone, Debug)]
pub struct Endpoints {
    all: Arc<[Arc<Endpoint>]>,
    turn: Arc<AtomicUsize>,
}

/// One instance of a service.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    channel: Channel,
    credentials: Credentials,
    /// Until when it is passed over, if it is out.
    rests_until: Mutex<Option<Instant>>,
}

impl Endpoints {
    /// The instances at `addresses`. Each is connected by its first call, and again whenever the connection was lost.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the connections live.
    pub fn new(addresses: &Addresses) -> Self {
        Self::secured(addresses, &Credentials::default())
    }

    /// The instances at `addresses`, which are shown these credentials: those that were opened for these addresses.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, in which the connections live.
    pub fn secured(addresses: &Addresses, credentials: &Credentials) -> Self {
        Self::of(addresses.iter().map(|address| {
            let channel = credentials.channel(&settings(address));
            Endpoint { credentials: credentials.clone(), ..Endpoint::new(address.clone(), channel) }
        }))
    }

    pub(crate) fn of(all: impl Iterator<Item = Endpoint>) -> Self {
        let all: Arc<[_]> = all.map(Arc::new).collect();
        // Clients that start together must not all begin with the same instance.
        let turn = Arc::new(AtomicUsize::new(rand::random_range(0..all.len().max(1))));
        Self { all, turn }
    }

    /// The instance whose turn it is.
    pub fn pick(&self) -> Arc<Endpoint> {
        self.pick_other_than(None)
    }

    /// The instance whose turn it is, another one than `last` if any other is not out.
    pub(crate) fn pick_other_than(&self, last: Option<&Arc<Endpoint>>) -> Arc<Endpoint> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let is_last = |endpoint: &&Arc<Endpoint>| last.is_some_and(|last| Arc::ptr_eq(last, endpoint));
        let in_turn = || (0..self.all.len()).map(|place| &self.all[turn.wrapping_add(place) % self.all.len()]);
        let picked = in_turn()
            .filter(|endpoint| !is_last(endpoint))
            .find(|endpoint| endpoint.is_ready(now))
            .or_else(|| last.filter(|last| last.is_ready(now)))
            .or_else(|| in_turn().find(|endpoint| !is_last(endpoint)))
            .unwrap_or_else(|| &self.all[0]);
        Arc::clone(picked)
    }
}

impl Endpoint {
    pub(crate) fn new(address: Address, channel: Channel) -> Self {
        Self { address, channel, credentials: Credentials::default(), rests_until: Mutex::new(None) }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Puts into a request what shows who calls, and the trace that we are in, unless it is there.
    pub fn authorize<T>(&self, request: &mut Request<T>) {
        self.credentials.authorize(request);
        if let Some(current) = TraceParent::current().filter(|_| !request.metadata().contains_key(TraceParent::HEADER))
        {
            in_trace(request, current);
        }
    }

    /// Its connection, for the generated clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// It failed: if it is out, others are asked for a while.
    pub(crate) fn judge(&self, failure: &Failure) {
        if instance_is_out(failure) { self.is_out() } else { self.is_back() }
    }

    /// It is out: others are asked for a while.
    pub(crate) fn is_out(&self) {
        self.rests_for(None);
    }

    /// It is out, and said for how long.
    pub(crate) fn rests_for(&self, time: Option<Duration>) {
        self.rest_until(Some(Instant::now() + time.map_or(REST, |time| time.clamp(REST, LONGEST_REST))));
    }

    /// It has spoken.
    pub(crate) fn is_back(&self) {
        self.rest_until(None);
    }

    fn rest_until(&self, time: Option<Instant>) {
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Whether it may be asked. Whoever asks first after a rest is the only one for the length of another.
    fn is_ready(&self, now: Instant) -> bool {
        let mut rests_until = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *rests_until {
            Some(end) if now < end => return false,
            Some(_) => *rests_until = Some(now + REST),
            None => {}
        }
        true
    }
}

/// What every connection has.
pub(crate) fn settings(address: &Address) -> transport::Endpoint {
    Channel::builder(address.uri().clone())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::advance;

    use super::*;

    fn endpoints(addresses: &str) -> Endpoints {
        Endpoints::new(&addresses.parse().unwrap())
    }

    /// Who is picked how often in `times`.
    fn picks(endpoints: &Endpoints, times: usize) -> BTreeMap<String, usize> {
        let mut picks = BTreeMap::new();
        for _ in 0..times {
            *picks.entry(endpoints.pick().address().to_string()).or_default() += 1;
        }
        picks
    }

    #[tokio::test]
    async fn instances_take_turns() {
        let picks = picks(&endpoints("a:1,b:1,c:1"), 30);

        assert_eq!(picks.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_is_out_is_passed_over_then_asked_once_and_used_again_when_it_spoke() {
        let endpoints = endpoints("a:1,b:1");
        let out = endpoints.pick();
        let address = out.address().to_string();

        out.is_out();
        assert_eq!(picks(&endpoints, 10).get(&address), None);

        advance(REST).await;
        assert_eq!(picks(&endpoints, 10)[&address], 1);

        out.is_back();
        assert_eq!(picks(&endpoints, 10)[&address], 5);
    }

    #[tokio::test]
    async fn when_all_are_out_they_take_turns_again() {
        let endpoints = endpoints("a:1,b:1");
        for endpoint in endpoints.all.iter() {
            endpoint.is_out();
        }

        assert_eq!(picks(&endpoints, 10).into_values().collect::<Vec<_>>(), [5, 5]);
    }

    #[tokio::test]
    async fn another_one_is_another_one_if_there_is_any_that_is_not_out() {
        let (two, one) = (endpoints("a:1,b:1"), endpoints("a:1"));
        let (last, only) = (two.pick(), one.pick());

        for _ in 0..5 {
            assert_ne!(two.pick_other_than(Some(&last)).address(), last.address());
            assert_eq!(one.pick_other_than(Some(&only)).address(), only.address());
        }

        two.pick_other_than(Some(&last)).is_out();
        assert_eq!(two.pick_other_than(Some(&last)).address(), last.address());
    }
}
