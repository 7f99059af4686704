//! More calls than a service can do: it does about as many as it could, and refuses the others at once.
//!
//! Of a service whose capacity is a set limit (two calls at a time, to a Postgres whose answers take their time), so that whoever
//! makes the load does not take from the service what it is measured by.

use std::sync::Arc;
use std::time::Duration;

use tidings_client::Caller;
use tidings_devstack::{Devstack, Options, Proxy};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, GetUserRequest};
use tokio::time::Instant;

use crate::drill::{Times, alone};
use crate::load::{Call, Load, Numbered};
use crate::report::{self, Line};
use crate::service::Service;
use crate::work::{self, Account, Refused, Work};

/// What the service does at a time.
const IN_FLIGHT: usize = 2;
/// How long Postgres takes, each way.
const DELAY: Duration = Duration::from_millis(10);
/// How much more than it can do it is asked for, and how much of what it can do it has to do then, in percent.
const LOADS: [(&str, u32, f64); 3] =
    [("overload, 2 x", 2, 90.0), ("overload, 5 x", 5, 85.0), ("overload, 10 x", 10, 80.0)];
/// What it may grow by.
const GROWTH: u64 = 64 << 20;

/// Reads of one user, out of Postgres.
struct Reads(Caller);

impl Work for Reads {
    const NAME: &'static str = "user";

    async fn once(&self, _: u64) -> Result<(), Refused> {
        let request = GetUserRequest {
            id: "nobody".to_owned(),
            consistency: Consistency::Strong.into(),
            ..GetUserRequest::default()
        };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        match self.0.call("GetUser", &request, send).await {
            Err(error) if error.contradiction().is_some() => Ok(()), // there is nobody of this name
            told => told.map(drop).map_err(|error| Refused::from(&error)),
        }
    }

    fn history(&self) -> Vec<String> {
        Vec::new()
    }

    async fn account(&self) -> Account {
        Account::default()
    }
}

/// A load for so long.
async fn offer(reads: &Arc<Numbered<Reads>>, rate: f64, time: Duration) -> (f64, Vec<Call>) {
    let load = Load::start(reads, rate);
    tokio::time::sleep(time).await;
    let ended = Instant::now();
    let calls = load.end().await;
    let done = calls.iter().filter(|call| call.refused.is_none() && call.ended < ended).count();
    (f64::from(u32::try_from(done).unwrap()) / time.as_secs_f64(), calls)
}

async fn overload() -> Vec<Line> {
    let times = Times::get();
    let time = times.either(Duration::from_secs(10), Duration::from_secs(2));
    let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
    stack.postgres().create_database("slow").await.unwrap();
    let url = stack.postgres().url("slow");
    let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    let url = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let limit = IN_FLIGHT.to_string();
    let mut service = Service::on(stack, "user", &["--postgres-url", &url, "--max-in-flight", &limit], &[]).await;
    proxy.delay(DELAY);
    let reads = Arc::new(Numbered::new(Reads(work::once(std::slice::from_ref(&service)))));

    reads.capacity(IN_FLIGHT, time / 2).await; // until all connections are made
    let capacity = reads.capacity(IN_FLIGHT, time).await;
    let memory = service.memory();
    let mut lines = Vec::new();
    for (drill, factor, least) in LOADS {
        let offered = capacity * f64::from(factor);
        let (goodput, calls) = offer(&reads, offered, time).await;
        let (back, after) = offer(&reads, capacity / 2.0, time).await;
        let mut line = Line::new(drill, Reads::NAME, capacity, offered);
        line.rates = [capacity, goodput, back];
        line.count(&calls);
        if line.refusals.iter().any(|(reason, _)| reason != "OVERLOADED") {
            line.complain(format!(
                "calls were refused for another reason than that there are too many: {:?}",
                line.refusals
            ));
        }
        if goodput < capacity * least / 100.0 {
            line.complain(format!("{goodput:.0}/s were done, not {least} % of {capacity:.0}/s"));
        }
        // The first may meet the last of the load before.
        let late = after.iter().filter(|call| call.refused.is_some() && call.due > after[0].due + time / 2).count();
        if late > 0 {
            line.complain(format!("{late} calls were refused long after the overload"));
        }
        if service.memory() > memory + GROWTH {
            line.complain(format!("it grew from {memory} to {} bytes", service.memory()));
        }
        lines.push(line);
    }
    service.assert_is_well();
    drop(service);
    tokio::join!(stack.postgres().stop(), stack.redis().stop());
    lines
}

#[test]
fn a_service_that_is_asked_for_more_does_what_it_can_and_refuses_the_rest() {
    let lines = alone(overload());
    report::add(&lines);
    let wrong = lines.iter().flat_map(Line::wrong).collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
