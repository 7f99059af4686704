//! Ten thousand calls that are begun and not wanted: nothing of them is left.

use std::time::Duration;

use prost::Message as _;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, User};
use tokio::time::{Instant, sleep};

use super::frames::{GET_USER, call, flag, kind, ping, reset, streams};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use super::victims::VICTIM;
use crate::service::{SOON, Service};

const CREATE_USER: &str = "/tidings.user.v1.UserService/CreateUser";
/// Calls that run at once before all of them are cancelled.
const AT_ONCE: usize = 100;
const CANCELS: u64 = 10_000;
/// What a service has of Postgres at most: for its callers, and for its relay.
const CONNECTIONS: i64 = 16 + 4;

/// Begins calls that ask Postgres, every other one a write, and cancels them when the server has read them; on another
/// connection when the server has enough of one, which it may: it can not tell this from a rapid reset.
async fn cancels(service: &Service) -> Attack {
    let (mut connections, mut sent) = (0, 0);
    while sent < CANCELS {
        let mut raw = Raw::connect(service.address).await;
        let mut streams = streams();
        connections += 1;
        while sent < CANCELS {
            let begun: Vec<u32> = streams.by_ref().take(AT_ONCE).collect();
            if round(&mut raw, &begun, Duration::from_millis(sent / 100 % 4)).await.is_none() {
                break;
            }
            sent += u64::try_from(AT_ONCE).unwrap();
        }
    }
    Attack { connections, sent }
}

/// Begins calls, and cancels them after a while; nothing if the connection ends.
async fn round(raw: &mut Raw, begun: &[u32], after: Duration) -> Option<()> {
    let calls = begun.iter().map(|stream| if stream % 4 == 1 { strong_read(*stream) } else { creation(*stream) });
    raw.send(&calls.chain([ping()]).collect::<Vec<_>>().concat()).await.ok()?;
    raw.find(kind::PING, flag::ACK).await?;
    sleep(after).await;
    raw.send(&begun.iter().flat_map(|stream| reset(*stream)).collect::<Vec<_>>()).await.ok()
}

fn strong_read(stream: u32) -> Vec<u8> {
    let consistency = Consistency::Strong.into();
    let request = GetUserRequest { id: VICTIM.to_owned(), consistency, ..GetUserRequest::default() };
    call(stream, GET_USER, &request.encode_to_vec())
}

fn creation(stream: u32) -> Vec<u8> {
    // Without an id, each is another user.
    let request = CreateUserRequest { user: Some(User::default()), ..CreateUserRequest::default() };
    call(stream, CREATE_USER, &request.encode_to_vec())
}

/// How many connections a service has to Postgres, and how many of them do something or wait to go on with something.
async fn backends(service: &Service) -> (i64, i64) {
    let stack = testing::shared().await;
    let mut sql = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    let query = "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity WHERE datname = $1";
    sqlx::query_as(query).bind(service.database()).fetch_one(&mut sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_cancelled_calls_nothing_is_left() {
    // Room for the calls of an attacker and of victims at a time: the pool is not what is tried here.
    let flags = ["--postgres-acquire-timeout", "5s"];
    let mut ledger = Ledger::open("10,000 cancels", Service::start("user", &flags).await).await;

    ledger.enter("calls begun and cancelled", cancels).await;

    let deadline = Instant::now() + SOON;
    loop {
        // The calls of victims come and go: some of them may be seen.
        let (all, busy) = backends(&ledger.service).await;
        let in_flight = ledger.service.metric("tidings_server_calls_in_flight").await;
        assert!(all <= CONNECTIONS, "{all} connections");
        if busy <= 2 && in_flight < 2.5 {
            break;
        }
        assert!(Instant::now() < deadline, "{in_flight} calls are in flight, {busy} connections busy");
        sleep(Duration::from_millis(20)).await;
    }
    ledger.close().await;
}
