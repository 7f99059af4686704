//! Clients that ask for much and take nothing: an answer that can not be sent is held, but not for ever and not without
//! bound.

use std::time::Duration;

use prost::Message as _;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{BatchGetUsersRequest, CreateUserRequest, User};
use tokio::time::sleep;

use super::frames::{call, flag, kind, ping, setting, streams};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use crate::service::{SOON, Service};

const BATCH_GET_USERS: &str = "/tidings.user.v1.UserService/BatchGetUsers";
/// Calls on one connection, as many as it may have.
const CALLS: usize = 256;
/// Users that are asked for in each call, of about 4 KiB.
const USERS: usize = 200;
/// Connections that ask one after the other and stay.
const STAYING: u64 = 3;
/// What a process may have at a time for answers of 600 MiB: itself, and those of little more than one connection.
const HELD: u64 = 450 << 20;
/// As the flags say.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A request whose answer is about 800 KiB.
async fn large_request(service: &Service) -> Vec<u8> {
    let mut users = UserServiceClient::new(service.channel().await);
    let ids: Vec<String> = (0..USERS).map(|n| format!("large-{n}")).collect();
    for id in &ids {
        let user = User { id: id.clone(), bio: "x".repeat(4_000), ..User::default() };
        users.create_user(CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }).await.unwrap();
    }
    BatchGetUsersRequest { ids, ..BatchGetUsersRequest::default() }.encode_to_vec()
}

/// Asks for as much as a connection may ask for, to take no more of each answer than `window` bytes.
async fn ask(service: &Service, request: &[u8], window: u32) -> Raw {
    let mut raw = Raw::with(service.address, &[(setting::INITIAL_WINDOW_SIZE, window)]).await;
    raw.find(kind::WINDOW_UPDATE, flag::NONE).await.unwrap(); // until then it may send no more than 64 KiB
    for stream in streams().take(CALLS) {
        raw.send(&call(stream, BATCH_GET_USERS, request)).await.unwrap();
    }
    raw
}

/// Asks, and goes away without an answer.
async fn leave(service: &Service, request: &[u8]) -> Attack {
    let mut raw = ask(service, request, 0).await;
    for _ in 0..CALLS {
        raw.find(kind::HEADERS, flag::END_HEADERS).await.unwrap();
    }
    raw.finish().await;
    raw.rest(SOON).await;
    Attack { connections: 1, sent: CALLS.try_into().unwrap() }
}

/// Asks, waits until the answers must have been given up, and asks on another connection; stays on all of them.
async fn stay(service: &Service, request: &[u8], window: u32) -> Attack {
    let mut connections = Vec::new();
    for _ in 0..STAYING {
        let mut raw = ask(service, request, window).await;
        for _ in 0..CALLS {
            raw.find(kind::HEADERS, flag::END_HEADERS).await.unwrap();
        }
        sleep(SEND_TIMEOUT * 2).await;
        connections.push(raw);
    }
    let peak = service.peak();
    assert!(peak < HELD, "{peak} bytes were held");
    for mut raw in connections {
        raw.send(&ping()).await.unwrap();
        raw.find(kind::PING, flag::ACK).await.unwrap();
    }
    Attack { connections: STAYING, sent: STAYING * u64::try_from(CALLS).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_given_up() {
    // So many large calls at once are load, too; that the stores come through it is not what is tried here.
    let flags = ["--send-timeout", "1s", "--redis-timeout", "5s", "--postgres-acquire-timeout", "5s"];
    let mut ledger = Ledger::open("answers of 200 MiB a connection", Service::start("user", &flags).await).await;
    let request = large_request(&ledger.service).await;

    for name in ["a client that goes away", "and again", "and again"] {
        ledger.enter(name, async |service| leave(service, &request).await).await;
    }
    for (name, window) in [("clients without windows that stay", 0), ("clients with windows of a byte that stay", 1)] {
        ledger.enter(name, async |service| stay(service, &request, window).await).await;
    }
    ledger.close().await;
}
