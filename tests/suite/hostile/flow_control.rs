//! Clients that request large responses and do not read them: the server buffers responses for a
//! bounded time and in bounded memory.

use std::time::Duration;

use prost::Message as _;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{BatchGetUsersRequest, CreateUserRequest, User};
use tokio::time::sleep;

use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{call, flag, kind, ping, setting, streams};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

const BATCH_GET_USERS: &str = "/tidings.user.v1.UserService/BatchGetUsers";
/// Calls on one connection: the limit of concurrent streams.
const CALLS: usize = 256;
/// Users requested in each call, about 4 KiB each.
const USERS: usize = 200;
/// Connections that are opened one after the other and stay open.
const CONNECTIONS: u64 = 3;
/// Peak memory in bytes, for responses of 600 MiB: the process, and the responses of little more
/// than one connection.
const MAX_MEMORY: u64 = 450 << 20;
/// Send timeout that the service is started with.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Creates users and returns a request whose response has about 800 KiB.
async fn large_request(service: &TestService) -> Vec<u8> {
    let mut users = UserServiceClient::new(service.channel().await);
    let ids: Vec<String> = (0..USERS).map(|n| format!("large-{n}")).collect();
    for id in &ids {
        let user = User { id: id.clone(), bio: "x".repeat(4_000), ..User::default() };
        users.create_user(CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }).await.unwrap();
    }
    BatchGetUsersRequest { ids, ..BatchGetUsersRequest::default() }.encode_to_vec()
}

/// Makes as many calls as a connection may have, with a flow-control window of `window` bytes for
/// each response.
async fn request_all(service: &TestService, request: &[u8], window: u32) -> RawConnection {
    let mut connection = RawConnection::connect_with(service.address, &[(setting::INITIAL_WINDOW_SIZE, window)]).await;
    connection.wait_for_frame(kind::WINDOW_UPDATE, flag::NONE).await.unwrap(); // raises the limit of 64 KiB
    for stream in streams().take(CALLS) {
        connection.send(&call(stream, BATCH_GET_USERS, request)).await.unwrap();
    }
    connection
}

/// Makes the calls and closes the connection without reading a response.
async fn request_and_disconnect(service: &TestService, request: &[u8]) -> AbuseTotals {
    let mut connection = request_all(service, request, 0).await;
    for _ in 0..CALLS {
        connection.wait_for_frame(kind::HEADERS, flag::END_HEADERS).await.unwrap();
    }
    connection.shutdown_write().await;
    connection.read_to_end(MAX_WAIT).await;
    AbuseTotals { connections: 1, sent: CALLS.try_into().unwrap() }
}

/// Makes the calls, waits until the server must have dropped the responses, and continues on
/// another connection. All connections stay open.
async fn request_and_stay(service: &TestService, request: &[u8], window: u32) -> AbuseTotals {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = request_all(service, request, window).await;
        for _ in 0..CALLS {
            connection.wait_for_frame(kind::HEADERS, flag::END_HEADERS).await.unwrap();
        }
        sleep(SEND_TIMEOUT * 2).await;
        connections.push(connection);
    }
    let peak = service.peak_memory();
    assert!(peak < MAX_MEMORY, "peak memory of {peak} bytes");
    for mut connection in connections {
        connection.send(&ping()).await.unwrap();
        connection.wait_for_frame(kind::PING, flag::ACK).await.unwrap();
    }
    AbuseTotals { connections: CONNECTIONS, sent: CONNECTIONS * u64::try_from(CALLS).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_are_not_read_are_dropped() {
    // Long timeouts: this many large calls are also load for Redis and Postgres.
    let flags = ["--send-timeout", "1s", "--redis-timeout", "5s", "--postgres-acquire-timeout", "5s"];
    let mut report =
        CostReport::start("responses of 200 MiB per connection", TestService::start("user", &flags).await).await;
    let request = large_request(&report.service).await;

    for name in ["a client that disconnects", "a second one", "a third one"] {
        report.measure(name, async |service| request_and_disconnect(service, &request).await).await;
    }
    for (name, window) in [("open connections, windows of 0 bytes", 0), ("open connections, windows of 1 byte", 1)] {
        report.measure(name, async |service| request_and_stay(service, &request, window).await).await;
    }
    report.finish().await;
}
