//! Malformed requests: all malformed fields are named at once, and nothing is done.

use tidings_proto::lock as pb;
use tonic::Code;

use crate::support::LockFixture;
use crate::support::client::{RpcResult, once};

/// Returns the malformed fields, in the order of the contract.
#[track_caller]
fn fields<T: std::fmt::Debug>(result: RpcResult<T>) -> Vec<String> {
    let failure = result.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{failure}");
    assert_eq!(failure.domain, "lock.tidings");
    failure.violations.into_iter().map(|violation| violation.field).collect()
}

fn length(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

#[tokio::test]
async fn every_malformed_field_of_an_acquire_is_named() {
    let locks = LockFixture::start().await;
    let request = pb::AcquireLockRequest {
        name: "orders//42".to_owned(),
        mode: 9,
        owner: "a\0b".to_owned(),
        ttl: Some(length(0, 999_000_000)),
        wait: Some(length(-1, 0)),
        request_id: "no spaces".to_owned(),
    };
    let expected = ["name", "mode", "owner", "ttl", "wait", "request_id"];

    assert_eq!(fields(locks.acquire(request).await), expected);
    assert_eq!(fields(locks.acquire(pb::AcquireLockRequest::default()).await), ["name", "owner"]);
    assert_eq!(locks.redis().await.size("holds").await, 0);
}

#[tokio::test]
async fn every_malformed_field_of_the_other_methods_is_named() {
    let locks = LockFixture::start().await;
    let renew = pb::RenewLockRequest { name: "{a}".to_owned(), lease_id: String::new(), token: 0 };
    assert_eq!(fields(locks.renew_as(renew).await), ["name", "lease_id", "token"]);
    let release = pb::ReleaseLockRequest { name: "/".to_owned(), lease_id: "a b".to_owned(), token: -1 };
    assert_eq!(fields(locks.release_as(release).await), ["name", "lease_id", "token"]);
    assert_eq!(fields(locks.check("", 0).await), ["name", "token"]);
    assert_eq!(fields(locks.get("a b").await), ["name"]);
}

#[tokio::test]
async fn each_limit_is_legal_and_one_above_it_is_not() {
    let locks = LockFixture::start().await;
    let legal = [
        once(&format!("{}/._~-", "A0".repeat(97)), "ada"),
        once("a", &"é".repeat(64)),
        pb::AcquireLockRequest { mode: 1, ..once("b", "ada") },
        pb::AcquireLockRequest { ttl: Some(length(1, 0)), ..once("c", "ada") },
        pb::AcquireLockRequest { ttl: Some(length(300, 0)), ..once("d", "ada") },
        pb::AcquireLockRequest { wait: Some(length(60, 0)), ..once("e", "ada") },
        pb::AcquireLockRequest { request_id: "r".repeat(64), ..once("f", "ada") },
    ];
    for request in legal {
        locks.acquire(request).await.unwrap().granted();
    }
    let illegal = [
        ("name", once(&"a".repeat(201), "ada")),
        ("owner", once("z", &"o".repeat(129))),
        ("ttl", pb::AcquireLockRequest { ttl: Some(length(300, 1_000_000)), ..once("z", "ada") }),
        ("wait", pb::AcquireLockRequest { wait: Some(length(60, 1_000_000)), ..once("z", "ada") }),
        ("request_id", pb::AcquireLockRequest { request_id: "r".repeat(65), ..once("z", "ada") }),
    ];
    for (field, request) in illegal {
        assert_eq!(fields(locks.acquire(request).await), [field]);
    }
    assert!(locks.get("z").await.unwrap().holders.is_empty());
}

#[tokio::test]
async fn an_oversized_request_is_refused_before_decoding() {
    let locks = LockFixture::start().await;

    let failure = locks.acquire(once("a", &"o".repeat(65 * 1024))).await.unwrap_err();
    assert_ne!(failure.code, Code::InvalidArgument, "the request was decoded");
}
