//! What is done is counted: one of each.

use crate::support::{Up, eventually};

#[test]
fn what_the_services_do_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let counted = |service: &str, metric: &str, wanted: f64| {
        eventually(&format!("{service}: {metric} {wanted}"), || {
            up.metric(service, metric).filter(|found| (found - wanted).abs() < 0.5)
        });
    };

    up.call("CreateUser", r#"{"user": {"id": "ada"}}"#);
    for _ in 0..3 {
        up.call("GetUser", r#"{"id": "ada"}"#);
    }
    counted("user", r#"tidings_user_leases_total{outcome="granted"}"#, 1.0);
    counted("user", r#"tidings_user_reads_total{source="postgres"}"#, 1.0);
    counted("user", r#"tidings_user_reads_total{source="redis"}"#, 1.0);
    counted("user", r#"tidings_user_reads_total{source="near"}"#, 1.0);
    counted("user", "tidings_user_relayed_total", 1.0);

    up.call("CreateConversation", r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#);
    let append =
        r#"{"conversation_id": "lobby", "sender_id": "ada", "client_message_id": "m", "body": {"text": "hello"}}"#;
    for _ in 0..2 {
        up.call("AppendMessage", append);
        up.call("ListMessages", r#"{"conversation_id": "lobby"}"#);
    }
    counted("history", r#"tidings_history_appends_total{outcome="new"}"#, 1.0);
    counted("history", r#"tidings_history_appends_total{outcome="repeated"}"#, 1.0);
    counted("history", r#"tidings_history_reads_total{source="postgres"}"#, 1.0);
    counted("history", r#"tidings_history_reads_total{source="redis"}"#, 1.0);
    counted("history", "tidings_history_relay_published_messages_total", 1.0);
    counted("history", "tidings_history_relay_shards", 16.0);

    counted("broadcast", r#"tidings_broadcast_published_messages_total{outcome="new"}"#, 1.0);
    let read = ["channel", "sub", "conversation/lobby", "--last", "10", "--count", "1"];
    assert!(up.command(&read).output().unwrap().status.success());
    counted("broadcast", "tidings_broadcast_delivered_messages_total", 1.0);
    counted("broadcast", "tidings_broadcast_streams", 0.0);

    let wish = r#"{"name": "nightly", "owner": "ada", "ttl": "60s"}"#;
    let lock = &up.call("AcquireLock", wish)["granted"];
    up.call("AcquireLock", wish);
    let lease = format!(r#"{{"name": "nightly", "lease_id": {}, "token": {}}}"#, lock["leaseId"], lock["token"]);
    up.call("RenewLock", &lease);
    up.call("ReleaseLock", &lease);
    counted("lock", r#"tidings_lock_acquires_total{outcome="granted"}"#, 1.0);
    counted("lock", r#"tidings_lock_acquires_total{outcome="held"}"#, 1.0);
    counted("lock", r#"tidings_lock_renewals_total{outcome="renewed"}"#, 1.0);
    counted("lock", "tidings_lock_releases_total", 1.0);
    counted("lock", "tidings_lock_epochs_opened_total", 1.0);
    counted("lock", "tidings_lock_epoch", 1.0);
    counted("lock", "tidings_lock_waiters", 0.0);
}
