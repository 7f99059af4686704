//! What is compared with what.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings::bench::prepare;
use tidings::load::{self, Call, Load, Pace, Tally};
use tidings_client::Addresses;

use crate::Plan;
use crate::contest::{Contender, Contest, Standing};
use crate::etcd::Etcd;
use crate::installation::Installation;
use crate::naive::Naive;
use crate::nats::Nats;
use crate::postgres::Pgbench;
use crate::process::Programs;
use crate::raw_redis::RawRedis;

/// Who calls at once, in every contest.
pub(crate) const CALLERS: usize = 64;
/// Who listens, in the last one.
pub(crate) const SUBSCRIBERS: u32 = 100;

/// Who calls batches of a hundred: as many as keep the services busy and do not drown them.
pub(crate) const BATCHING: usize = 8;

pub(crate) const USERS: &str = "Reading a cached user";
pub(crate) const BATCHES: &str = "Reading 100 cached users";
pub(crate) const SEEN: &str = "An update, until plain reads of two instances show it";

pub(crate) const OURS: &str = "Tidings";
pub(crate) const FROM_REDIS: &str = "Tidings, from Redis";
pub(crate) const EMPTY: &str = "an empty call";
const NAIVE: &str = "naive Python";

/// Runs all of them.
pub(crate) async fn run(plan: Plan, ours: &Installation, programs: &Programs, scratch: &Path) -> Vec<Standing> {
    let redis = RawRedis::new(&ours.redis());
    let etcd = Etcd::start(programs, &scratch.join("etcd")).await;
    let nats = Nats::start(programs).await;
    let naive = Naive::start(programs, ours).await;
    vec![
        users(ours, &redis, naive.as_ref()).await.run(plan, ours).await,
        batches(ours, &redis, naive.as_ref()).await.run(plan, ours).await,
        pages(ours, &redis, naive.as_ref()).await.run(plan, ours).await,
        appends(ours, naive.as_ref()).await.run(plan, ours).await,
        locks(ours, &redis, etcd.as_ref(), naive.as_ref()).await.run(plan, ours).await,
        pushes(ours, &redis, nats.as_ref(), naive.as_ref()).await.run(plan, ours).await,
    ]
}

/// A scenario of Tidings, at any server that has its contract.
async fn scenario(name: &str, at: &Addresses) -> Call {
    prepare(name, at, CALLERS).await.unwrap_or_else(|fault| panic!("{name} at {at}: {fault}"))
}

fn contest(title: &'static str, method: &str, contenders: Vec<Contender>) -> Contest {
    Contest { title, method: method.to_owned(), callers: CALLERS, contenders }
}

async fn users(ours: &Installation, redis: &RawRedis, naive: Option<&Naive>) -> Contest {
    let user = ours.address("user");
    let mut contenders = vec![
        Contender::calls(
            OURS,
            "GetUser; most come out of the memory of the instance, which Redis tells of changes",
            scenario("get-user", user).await,
        ),
        Contender::calls(
            FROM_REDIS,
            "GetUser with `--user-near-bytes=0`; the cache proves by version and lease that it is not old",
            scenario("get-user", ours.address("user without memory")).await,
        ),
        Contender::calls(
            EMPTY,
            "grpc.health.v1 Check of the same server: what it could do at most",
            scenario("empty", user).await,
        ),
        Contender::calls("raw Redis", "GET of as many bytes, no server between", redis.get().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("get-user", naive.address()).await;
        contenders.push(Contender::calls(NAIVE, "GET user_info_<id>, no expiry, no invalidation", call));
    }
    contest(USERS, "One of 1,000 users at a time, about 150 bytes.", contenders)
}

async fn batches(ours: &Installation, redis: &RawRedis, naive: Option<&Naive>) -> Contest {
    let mut contenders = vec![
        Contender::calls(OURS, "BatchGetUsers, out of memory", scenario("batch-get-users", ours.address("user")).await),
        Contender::calls(
            FROM_REDIS,
            "BatchGetUsers with `--user-near-bytes=0`: one MGET",
            scenario("batch-get-users", ours.address("user without memory")).await,
        ),
        Contender::calls("raw Redis", "MGET of as many bytes, no server between", redis.get_many().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("batch-get-users", naive.address()).await;
        contenders.push(Contender::calls(NAIVE, "MGET user_info_<id> ...", call));
    }
    let method = "100 of 1,000 users at a time, 8 callers.";
    Contest { callers: BATCHING, ..contest(BATCHES, method, contenders) }
}

/// How long it takes, at a rate that leaves time, until both instances show an update to plain reads; the update included.
pub(crate) async fn seen(plan: Plan, ours: &Installation) -> Tally {
    eprintln!("{SEEN} ...");
    let call = prepare("update-seen", &ours.both_users(), CALLERS).await;
    let load = Load {
        pace: Pace::Rate(100.0),
        in_flight: CALLERS,
        warm_up: plan.warm_up,
        time: plan.open,
        grace: Duration::from_secs(5),
    };
    load::run(&load, &call.unwrap_or_else(|fault| panic!("{SEEN}: {fault}")), &Arc::default()).await
}

async fn pages(ours: &Installation, redis: &RawRedis, naive: Option<&Naive>) -> Contest {
    let call = scenario("list-messages", ours.address("history")).await;
    let mut contenders = vec![
        Contender::calls(OURS, "ListMessages; the tail proves that it is contiguous", call),
        Contender::calls("raw Redis", "LRANGE of as many bytes, no server between", redis.page().await),
    ];
    if let Some(naive) = naive {
        let call = scenario("list-messages", naive.address()).await;
        contenders.push(Contender::calls(NAIVE, "LRANGE 0 -1, that is, all 400 messages each time", call));
    }
    contest(
        "Reading the newest 100 messages",
        "One of 20 conversations of 400 messages of 100 bytes at a time.",
        contenders,
    )
}

async fn appends(ours: &Installation, naive: Option<&Naive>) -> Contest {
    let pgbench = Pgbench::prepare(&ours.database("pgbench").await).await;
    let call = scenario("append-message", ours.address("history")).await;
    let mut contenders = vec![
        Contender::calls(OURS, "AppendMessage: durable, numbered without gaps, safe to repeat, published", call),
        Contender::pgbench(
            "pgbench",
            "one INSERT a transaction, 16 connections: the least that a durable row costs",
            pgbench,
        ),
    ];
    if let Some(naive) = naive {
        let call = scenario("append-message", naive.address()).await;
        contenders.push(Contender::calls(
            NAIVE,
            "INSERT, then RPUSH: durable, order by luck, not safe to repeat",
            call,
        ));
    }
    let method = "Messages of 100 bytes to 1,000 conversations in turn. Postgres has `fsync = on` and `synchronous_commit = on` for \
                  all: what is acknowledged survives a crash of the machine.";
    contest("Appending a message", method, contenders)
}

async fn locks(ours: &Installation, redis: &RawRedis, etcd: Option<&Etcd>, naive: Option<&Naive>) -> Contest {
    let call = scenario("acquire-release", ours.address("lock")).await;
    let mut contenders = vec![
        Contender::calls(
            OURS,
            "AcquireLock and ReleaseLock: leases, tokens, a queue; the lease itself is in Redis only",
            call,
        ),
        Contender::calls(
            "raw Redis",
            "SET NX PX and a script that compares and deletes; no tokens, no queue",
            redis.lock(),
        ),
    ];
    if let Some(etcd) = etcd {
        let call = etcd.lock(CALLERS).await;
        contenders.push(Contender::calls(
            "etcd",
            "v3lock Lock and Unlock, one node: on disk before it is granted, which ours is not",
            call,
        ));
    }
    if let Some(naive) = naive {
        let call = scenario("acquire-release", naive.address()).await;
        contenders.push(Contender::calls(NAIVE, "SETNX and DEL: a crash locks for ever", call));
    }
    contest(
        "Taking a free lock and releasing it",
        "Each caller has a lock of its own. Two calls count as one.",
        contenders,
    )
}

async fn pushes(ours: &Installation, redis: &RawRedis, nats: Option<&Nats>, naive: Option<&Naive>) -> Contest {
    let call = scenario("subscribe", ours.address("broadcast")).await;
    let note = "recoverable: numbered, kept for those who were away, resumed without a hole";
    let mut contenders = vec![
        Contender::calls(OURS, note, call),
        Contender::calls(
            "raw Redis",
            "PUBLISH, a connection for each subscriber: a blink loses messages silently",
            redis.fanout().await,
        ),
    ];
    if let Some(nats) = nats {
        contenders.push(Contender::calls(
            "nats-server",
            "core NATS: at most once, nothing is kept",
            nats.fanout().await,
        ));
    }
    if let Some(naive) = naive {
        let call = scenario("subscribe", naive.address()).await;
        contenders.push(Contender::calls(NAIVE, "PUBLISH and SUBSCRIBE behind a stream, a thread for each", call));
    }
    let method =
        "Messages of 100 bytes to one channel with 100 subscribers; a message is done when the last subscriber has it.";
    contest("Publishing to 100 subscribers", method, contenders)
}
