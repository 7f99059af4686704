//! Overload: a service works at about its capacity and refuses the excess immediately.
//!
//! The capacity is set by a limit (two calls in flight, to a slow Postgres) instead of by CPU, for
//! which the load generator would compete.

use std::sync::Arc;
use std::time::Duration;

use tidings_client::Caller;
use tidings_devstack::{Devstack, Options, Proxy};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, GetUserRequest};
use tokio::time::Instant;

use crate::drill::{DrillTimes, run_exclusively};
use crate::load::{CallOutcome, NumberedCalls, OpenLoop};
use crate::report::{self, DrillResult};
use crate::service::TestService;
use crate::workload::{self, CallError, LedgerCounts, Workload};

/// Concurrent calls that the service admits.
const IN_FLIGHT: usize = 2;
/// Delay of Postgres in each direction.
const DELAY: Duration = Duration::from_millis(10);
/// Per drill: the offered load as a multiple of the capacity, and the smallest rate of successful
/// calls in percent of the capacity.
///
/// The service has no queue, so a slot is idle until the next call arrives. Erlang's loss formula
/// gives the rate for arrivals at random times: 77 % at twice the capacity of two slots, 90 % at
/// five times, 95 % at ten times. A tenth is allowed for the short measurement.
const LOADS: [(&str, u32, f64); 3] =
    [("overload, 2 x", 2, 69.0), ("overload, 5 x", 5, 81.0), ("overload, 10 x", 10, 85.0)];
/// Largest growth of the service's memory, in bytes.
const MEMORY_GROWTH_MAX: u64 = 64 << 20;

/// Reads one absent user from Postgres.
struct ReadWorkload(Caller);

impl Workload for ReadWorkload {
    const NAME: &'static str = "user";

    async fn call(&self, _: u64) -> Result<(), CallError> {
        let request = GetUserRequest {
            id: "absent".to_owned(),
            consistency: Consistency::Strong.into(),
            ..GetUserRequest::default()
        };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        match self.0.call("GetUser", &request, send).await {
            Err(error) if error.precondition_failure().is_some() => Ok(()), // the user does not exist
            result => result.map(drop).map_err(|error| CallError::from(&error)),
        }
    }

    fn ledger_lines(&self) -> Vec<String> {
        Vec::new()
    }

    async fn check_ledger(&self) -> LedgerCounts {
        LedgerCounts::default()
    }
}

/// Offers a load for this long; returns the successful calls per second and all outcomes.
async fn offer(reads: &Arc<NumberedCalls<ReadWorkload>>, rate: f64, time: Duration) -> (f64, Vec<CallOutcome>) {
    let load = OpenLoop::start(reads, rate);
    tokio::time::sleep(time).await;
    let ended = Instant::now();
    let calls = load.stop().await;
    let succeeded = calls.iter().filter(|call| call.error.is_none() && call.ended < ended).count();
    (f64::from(u32::try_from(succeeded).unwrap()) / time.as_secs_f64(), calls)
}

async fn overload() -> Vec<DrillResult> {
    let times = DrillTimes::get();
    let time = times.either(Duration::from_secs(10), Duration::from_secs(2));
    let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
    stack.postgres().create_database("slow").await.unwrap();
    let url = stack.postgres().url("slow");
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    let url = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let limit = IN_FLIGHT.to_string();
    let mut service =
        TestService::start_on(stack, "user", &["--postgres-url", &url, "--max-in-flight", &limit], &[]).await;
    proxy.delay(DELAY);
    let reads =
        Arc::new(NumberedCalls::new(ReadWorkload(workload::caller_without_retries(std::slice::from_ref(&service)))));

    reads.capacity(IN_FLIGHT, time / 2).await; // opens all connections
    let capacity = reads.capacity(IN_FLIGHT, time).await;
    let memory = service.memory();
    let mut results = Vec::new();
    for (drill, factor, min_percent) in LOADS {
        let offered = capacity * f64::from(factor);
        let (goodput, calls) = offer(&reads, offered, time).await;
        let (recovered, after) = offer(&reads, capacity / 2.0, time).await;
        let mut result = DrillResult::new(drill, ReadWorkload::NAME, offered);
        result.rates = [capacity, goodput, recovered];
        result.count_errors(&calls);
        if result.errors.iter().any(|(error, _)| error != "OVERLOADED") {
            result.add_violation(format!("calls failed for other reasons than OVERLOADED: {:?}", result.errors));
        }
        if goodput < capacity * min_percent / 100.0 {
            result.add_violation(format!("{goodput:.0}/s succeeded, less than {min_percent} % of {capacity:.0}/s"));
        }
        // The first calls of this load may meet the last of the overload.
        let settled = after[0].intended + time / 2;
        let late = after.iter().filter(|call| call.error.is_some() && call.intended > settled).count();
        if late > 0 {
            result.add_violation(format!("{late} calls failed long after the overload"));
        }
        if service.memory() > memory + MEMORY_GROWTH_MAX {
            result.add_violation(format!("memory grew from {memory} to {} bytes", service.memory()));
        }
        results.push(result);
    }
    service.assert_running();
    drop(service);
    tokio::join!(stack.postgres().stop(), stack.redis().stop());
    results
}

#[test]
fn an_overloaded_service_works_at_capacity_and_sheds_the_rest() {
    let results = run_exclusively(overload());
    report::add(&results);
    let violations = results.iter().flat_map(DrillResult::violations).collect::<Vec<_>>();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
