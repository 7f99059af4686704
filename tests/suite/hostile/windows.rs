//! Clients that ask for much and take nothing: an answer that can not be sent is held, but not for ever and not without
//! bound.

use std::time::Duration;

use prost::Message as _;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{BatchGetUsersRequest, CreateUserRequest, User};
use tokio::time::sleep;

use super::frames::{call, flag, kind, setting, streams};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use crate::service::{SOON, Service};

const BATCH_GET_USERS: &str = "/tidings.user.v1.UserService/BatchGetUsers";
/// Calls on one connection, as many as it may have.
const CALLS: usize = 256;
/// Users that are asked for in each call, of about 4 KiB.
const USERS: usize = 200;

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

/// Asks for as much as a connection may ask for, and takes nothing of it.
async fn ask(service: &Service, request: &[u8]) -> Raw {
    let mut raw = Raw::with(service.address, &[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
    raw.find(kind::WINDOW_UPDATE, flag::NONE).await.unwrap(); // until then it may send no more than 64 KiB
    for stream in streams().take(CALLS) {
        raw.send(&call(stream, BATCH_GET_USERS, request)).await.unwrap();
    }
    for _ in 0..CALLS {
        raw.find(kind::HEADERS, flag::END_HEADERS).await.unwrap();
    }
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_bounded() {
    let mut ledger = Ledger::open("zero windows", Service::start("user", &[]).await).await;
    let request = large_request(&ledger.service).await;

    for _ in 0..3 {
        ledger
            .enter("answers of 200 MiB, and no window", async |service| {
                let mut raw = ask(service, &request).await;
                sleep(Duration::from_secs(1)).await;
                raw.finish().await;
                raw.rest(SOON).await;
                Attack { connections: 1, sent: CALLS.try_into().unwrap() }
            })
            .await;
    }
    ledger.close().await;
}
