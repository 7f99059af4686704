//! Metrics of all services after one operation of each kind.

use crate::support::{TidingsUp, eventually};

#[test]
fn every_operation_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let assert_metric = |service: &str, metric: &str, expected: f64| {
        eventually(&format!("{service}: {metric} {expected}"), || {
            tidings.metric(service, metric).filter(|found| (found - expected).abs() < 0.5)
        });
    };

    tidings.call("CreateUser", r#"{"user": {"id": "ada"}}"#);
    for _ in 0..3 {
        tidings.call("GetUser", r#"{"id": "ada"}"#);
    }
    assert_metric("user", r#"tidings_user_leases_total{outcome="granted"}"#, 1.0);
    assert_metric("user", r#"tidings_user_reads_total{source="postgres"}"#, 1.0);
    assert_metric("user", r#"tidings_user_reads_total{source="redis"}"#, 1.0);
    assert_metric("user", r#"tidings_user_reads_total{source="local_cache"}"#, 1.0);
    assert_metric("user", "tidings_user_relayed_total", 1.0);

    tidings.call("CreateConversation", r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#);
    let append =
        r#"{"conversation_id": "lobby", "sender_id": "ada", "client_message_id": "m", "body": {"text": "hello"}}"#;
    for _ in 0..2 {
        tidings.call("AppendMessage", append);
        tidings.call("ListMessages", r#"{"conversation_id": "lobby"}"#);
    }
    assert_metric("history", r#"tidings_history_appends_total{outcome="new"}"#, 1.0);
    assert_metric("history", r#"tidings_history_appends_total{outcome="repeated"}"#, 1.0);
    assert_metric("history", r#"tidings_history_reads_total{source="postgres"}"#, 1.0);
    assert_metric("history", r#"tidings_history_reads_total{source="redis"}"#, 1.0);
    assert_metric("history", "tidings_history_relay_published_messages_total", 1.0);
    assert_metric("history", "tidings_history_relay_shards", 16.0);

    assert_metric("broadcast", r#"tidings_broadcast_published_messages_total{outcome="new"}"#, 1.0);
    let read = ["channel", "sub", "conversation/lobby", "--last", "10", "--count", "1"];
    assert!(tidings.command(&read).output().unwrap().status.success());
    assert_metric("broadcast", "tidings_broadcast_delivered_messages_total", 1.0);
    assert_metric("broadcast", "tidings_broadcast_streams", 0.0);

    let request = r#"{"name": "nightly", "owner": "ada", "ttl": "60s"}"#;
    let lock = &tidings.call("AcquireLock", request)["granted"];
    tidings.call("AcquireLock", request);
    let lease = format!(r#"{{"name": "nightly", "lease_id": {}, "token": {}}}"#, lock["leaseId"], lock["token"]);
    tidings.call("RenewLock", &lease);
    tidings.call("ReleaseLock", &lease);
    assert_metric("lock", r#"tidings_lock_acquires_total{outcome="granted"}"#, 1.0);
    assert_metric("lock", r#"tidings_lock_acquires_total{outcome="held"}"#, 1.0);
    assert_metric("lock", r#"tidings_lock_renewals_total{outcome="renewed"}"#, 1.0);
    assert_metric("lock", "tidings_lock_releases_total", 1.0);
    assert_metric("lock", "tidings_lock_epochs_opened_total", 1.0);
    assert_metric("lock", "tidings_lock_epoch", 1.0);
    assert_metric("lock", "tidings_lock_waiters", 0.0);
}
