//! Ten thousand calls that are started and cancelled: none leaves work or connections behind.

use std::time::Duration;

use prost::Message as _;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, User};
use tokio::time::{Instant, sleep};

use super::background_load::BACKGROUND_USER;
use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{GET_USER, call, flag, kind, ping, reset, streams};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

const CREATE_USER: &str = "/tidings.user.v1.UserService/CreateUser";
/// Concurrent calls that are cancelled together.
const AT_ONCE: usize = 100;
const CANCELS: u64 = 10_000;
/// Postgres connections of a service at most: 16 of callers and 4 of the relay.
const CONNECTIONS: i64 = 16 + 4;

/// Starts calls that use Postgres, every second one a write, and cancels them once the server has
/// read them. The server may close a connection, since the pattern looks like a rapid reset; then
/// the calls continue on another one.
async fn cancel_calls(service: &TestService) -> AbuseTotals {
    let (mut connections, mut sent) = (0, 0);
    while sent < CANCELS {
        let mut connection = RawConnection::connect(service.address).await;
        let mut streams = streams();
        connections += 1;
        while sent < CANCELS {
            let open_streams: Vec<u32> = streams.by_ref().take(AT_ONCE).collect();
            if cancel_batch(&mut connection, &open_streams, Duration::from_millis(sent / 100 % 4)).await.is_none() {
                break;
            }
            sent += u64::try_from(AT_ONCE).unwrap();
        }
    }
    AbuseTotals { connections, sent }
}

/// Starts calls on the given streams and cancels them after a delay; `None` if the connection ends.
async fn cancel_batch(connection: &mut RawConnection, open_streams: &[u32], after: Duration) -> Option<()> {
    let calls =
        open_streams.iter().map(|stream| if stream % 4 == 1 { strong_read(*stream) } else { create_user(*stream) });
    connection.send(&calls.chain([ping()]).collect::<Vec<_>>().concat()).await.ok()?;
    connection.wait_for_frame(kind::PING, flag::ACK).await?;
    sleep(after).await;
    connection.send(&open_streams.iter().flat_map(|stream| reset(*stream)).collect::<Vec<_>>()).await.ok()
}

fn strong_read(stream: u32) -> Vec<u8> {
    let consistency = Consistency::Strong.into();
    let request = GetUserRequest { id: BACKGROUND_USER.to_owned(), consistency, ..GetUserRequest::default() };
    call(stream, GET_USER, &request.encode_to_vec())
}

fn create_user(stream: u32) -> Vec<u8> {
    // Without an id, each call creates another user.
    let request = CreateUserRequest { user: Some(User::default()), ..CreateUserRequest::default() };
    call(stream, CREATE_USER, &request.encode_to_vec())
}

/// Returns the number of a service's Postgres connections, and of those in a statement or
/// transaction.
async fn backends(service: &TestService) -> (i64, i64) {
    let stack = testing::shared().await;
    let mut sql = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    let query = "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity WHERE datname = $1";
    sqlx::query_as(query).bind(service.database()).fetch_one(&mut sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_calls_leave_nothing_behind() {
    // Long enough that no call of the background load is refused because the pool is busy.
    let flags = ["--postgres-acquire-timeout", "5s"];
    let mut report = CostReport::start("10,000 cancels", TestService::start("user", &flags).await).await;

    report.measure("calls started and cancelled", cancel_calls).await;

    let deadline = Instant::now() + MAX_WAIT;
    loop {
        // Up to two calls of the background load may be active.
        let (all, busy) = backends(&report.service).await;
        let in_flight = report.service.metric("tidings_server_calls_in_flight").await;
        assert!(all <= CONNECTIONS, "{all} connections");
        if busy <= 2 && in_flight < 2.5 {
            break;
        }
        assert!(Instant::now() < deadline, "{in_flight} calls are in flight, {busy} connections busy");
        sleep(Duration::from_millis(20)).await;
    }
    report.finish().await;
}
