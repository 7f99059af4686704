//! The comparisons, with the candidates of each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings_client::Addresses;
use tidings_load::{BenchCall, LoadSpec, Pace, RunTally, Scenario, ScenarioSettings};

use crate::comparison::{Candidate, Comparison, ComparisonResult};
use crate::etcd::Etcd;
use crate::installation::Installation;
use crate::naive::NaiveServer;
use crate::nats::Nats;
use crate::plan::{BATCH_CALLERS, CALLERS, Plan};
use crate::postgres::Pgbench;
use crate::process::PeerPrograms;
use crate::raw_redis::RawRedis;

pub(crate) const USERS: &str = "Reading a cached user";
pub(crate) const BATCHES: &str = "Reading 100 cached users";
pub(crate) const UPDATE_VISIBLE: &str = "Updating a user, until cached reads of two instances return it";

pub(crate) const TIDINGS: &str = "Tidings";
pub(crate) const WITHOUT_LOCAL_CACHE: &str = "Tidings without local cache";
pub(crate) const EMPTY: &str = "empty call";
const NAIVE: &str = "naive Python";

/// Runs all comparisons.
pub(crate) async fn run(
    plan: Plan,
    installation: &Installation,
    programs: &PeerPrograms,
    scratch: &Path,
) -> Vec<ComparisonResult> {
    let redis = RawRedis::new(&installation.redis());
    let etcd = Etcd::start(programs, &scratch.join("etcd")).await;
    let nats = Nats::start(programs).await;
    let naive = NaiveServer::start(programs, installation).await;
    vec![
        users(installation, &redis, naive.as_ref()).await.run(plan, installation).await,
        batches(installation, &redis, naive.as_ref()).await.run(plan, installation).await,
        pages(installation, &redis, naive.as_ref()).await.run(plan, installation).await,
        appends(installation, naive.as_ref()).await.run(plan, installation).await,
        locks(installation, &redis, etcd.as_ref(), naive.as_ref()).await.run(plan, installation).await,
        publishes(installation, &redis, nats.as_ref(), naive.as_ref()).await.run(plan, installation).await,
    ]
}

/// Prepares a scenario of `tidings bench` against any server of its contract.
async fn scenario(name: &str, addresses: &Addresses) -> BenchCall {
    let call = Scenario::find(name).unwrap().prepare(&ScenarioSettings::new(addresses, CALLERS)).await;
    call.unwrap_or_else(|failure| panic!("{name} at {addresses}: {failure}"))
}

fn comparison(title: &'static str, method: &str, candidates: Vec<Candidate>) -> Comparison {
    Comparison { title, method: method.to_owned(), callers: CALLERS, candidates }
}

async fn users(installation: &Installation, redis: &RawRedis, naive: Option<&NaiveServer>) -> Comparison {
    let user = installation.address("user");
    let mut candidates = vec![
        Candidate::calls(
            TIDINGS,
            "GetUser, mostly from the local cache, which Redis keeps valid by invalidations",
            scenario("get-user", user).await,
        ),
        Candidate::calls(
            WITHOUT_LOCAL_CACHE,
            "GetUser with `--user-local-cache-bytes=0`, from Redis; versions and leases keep stale data out",
            scenario("get-user", installation.address("user without local cache")).await,
        ),
        Candidate::calls(
            EMPTY,
            "grpc.health.v1 Check of the same server: its upper limit",
            scenario("empty", user).await,
        ),
        Candidate::calls("raw Redis", "GET of the same size, without a service", redis.get().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("get-user", naive.address()).await;
        candidates.push(Candidate::calls(NAIVE, "GET user_info_<id>; no expiry, no invalidation", call));
    }
    comparison(USERS, "One of 1,000 users per call, about 150 bytes.", candidates)
}

async fn batches(installation: &Installation, redis: &RawRedis, naive: Option<&NaiveServer>) -> Comparison {
    let mut candidates = vec![
        Candidate::calls(
            TIDINGS,
            "BatchGetUsers, from the local cache",
            scenario("batch-get-users", installation.address("user")).await,
        ),
        Candidate::calls(
            WITHOUT_LOCAL_CACHE,
            "BatchGetUsers with `--user-local-cache-bytes=0`: one MGET",
            scenario("batch-get-users", installation.address("user without local cache")).await,
        ),
        Candidate::calls("raw Redis", "MGET of the same size, without a service", redis.get_many().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("batch-get-users", naive.address()).await;
        candidates.push(Candidate::calls(NAIVE, "MGET user_info_<id> ...", call));
    }
    let method = "100 of 1,000 users per call, 8 callers.";
    Comparison { callers: BATCH_CALLERS, ..comparison(BATCHES, method, candidates) }
}

/// Measures, in an open loop at a sustainable rate, the time from the start of an update until
/// cached reads of both instances return it.
pub(crate) async fn update_visible(plan: Plan, installation: &Installation) -> RunTally {
    eprintln!("{UPDATE_VISIBLE} ...");
    let call = scenario("update-seen", &installation.both_users()).await;
    let load = LoadSpec {
        pace: Pace::Rate(100.0),
        in_flight: CALLERS,
        warm_up: plan.warm_up,
        time: plan.open,
        grace: Duration::from_secs(5),
    };
    tidings_load::run(&load, &call, &Arc::default()).await
}

async fn pages(installation: &Installation, redis: &RawRedis, naive: Option<&NaiveServer>) -> Comparison {
    let call = scenario("list-messages", installation.address("history")).await;
    let mut candidates = vec![
        Candidate::calls(TIDINGS, "ListMessages, from a tail in Redis that is verified to be contiguous", call),
        Candidate::calls("raw Redis", "LRANGE of the same size, without a service", redis.page().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("list-messages", naive.address()).await;
        candidates.push(Candidate::calls(NAIVE, "LRANGE 0 -1: all 400 messages every time", call));
    }
    comparison(
        "Reading the newest 100 messages",
        "One of 20 conversations per call; each has 400 messages of 100 bytes.",
        candidates,
    )
}

async fn appends(installation: &Installation, naive: Option<&NaiveServer>) -> Comparison {
    let pgbench = Pgbench::prepare(&installation.database("pgbench").await).await;
    let call = scenario("append-message", installation.address("history")).await;
    let mut candidates = vec![
        Candidate::calls(TIDINGS, "AppendMessage: durable, gapless seqs, idempotent, published", call),
        Candidate::pgbench(
            "pgbench",
            "one INSERT per transaction, 16 connections: the minimum for a durable row",
            pgbench,
        ),
    ];
    if let Some(naive) = naive {
        let call = scenario("append-message", naive.address()).await;
        candidates.push(Candidate::calls(
            NAIVE,
            "INSERT, then RPUSH: durable, but cached in any order, and not idempotent",
            call,
        ));
    }
    let method = "Messages of 100 bytes to 1,000 conversations in turn. Postgres has `fsync = on` and\n\
                  `synchronous_commit = on` for all: acknowledged writes survive a crash of the machine.";
    comparison("Appending a message", method, candidates)
}

async fn locks(
    installation: &Installation,
    redis: &RawRedis,
    etcd: Option<&Etcd>,
    naive: Option<&NaiveServer>,
) -> Comparison {
    let call = scenario("acquire-release", installation.address("lock")).await;
    let mut candidates = vec![
        Candidate::calls(
            TIDINGS,
            "AcquireLock and ReleaseLock: leases, fencing tokens, a wait queue; the lease is in Redis only",
            call,
        ),
        Candidate::calls(
            "raw Redis",
            "SET NX PX and a compare-and-delete script; no fencing tokens, no wait queue",
            redis.lock(),
        ),
    ];
    if let Some(etcd) = etcd {
        let call = etcd.lock(CALLERS).await;
        candidates.push(Candidate::calls(
            "etcd",
            "v3lock Lock and Unlock, one node; the lock is on disk before it is granted, unlike in Tidings",
            call,
        ));
    }
    if let Some(naive) = naive {
        let call = scenario("acquire-release", naive.address()).await;
        candidates.push(Candidate::calls(NAIVE, "SETNX and DEL: a crashed holder locks indefinitely", call));
    }
    comparison(
        "Acquiring and releasing a free lock",
        "Each caller has a lock of its own. The two calls count as one.",
        candidates,
    )
}

async fn publishes(
    installation: &Installation,
    redis: &RawRedis,
    nats: Option<&Nats>,
    naive: Option<&NaiveServer>,
) -> Comparison {
    let call = scenario("subscribe", installation.address("broadcast")).await;
    let mut candidates = vec![
        Candidate::calls(
            TIDINGS,
            "recoverable: numbered, retained for disconnected subscribers, resumed without gaps",
            call,
        ),
        Candidate::calls(
            "raw Redis",
            "PUBLISH, one connection per subscriber; a disconnect loses messages silently",
            redis.fanout().await,
        ),
    ];
    if let Some(nats) = nats {
        candidates.push(Candidate::calls(
            "nats-server",
            "core NATS: at most once, nothing is retained",
            nats.fanout().await,
        ));
    }
    if let Some(naive) = naive {
        let call = scenario("subscribe", naive.address()).await;
        candidates.push(Candidate::calls(NAIVE, "PUBLISH and SUBSCRIBE behind a stream, one thread per stream", call));
    }
    let method = "Messages of 100 bytes to one channel with 100 subscribers. A publish is complete when the last\n\
                  subscriber has received the message.";
    comparison("Publishing to 100 subscribers", method, candidates)
}
