//! Callers that cancel a call in flight.

use std::time::Duration;

use super::support::{SOON, TestEnv, eventually, renaming};

/// Delays before the cancellation of a call, in units of 50 us: from "not sent yet" to "almost
/// replied".
const DELAYS: std::ops::Range<u64> = 0..120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_caller_leaves_no_half_done_write() {
    let env = TestEnv::shared().await;
    env.execute(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
         VALUES ('ada', '', 'Ada', '', '', '{}', 1)",
    )
    .await;
    let users = env.serve_without_relay().await;
    users.warm_redis("ada").await;

    for delay in DELAYS {
        let mut client = users.client();
        let call = async move { client.update_user(renaming("ada", &format!("name {delay}"))).await.map(drop) };
        let _cancelled = tokio::time::timeout(Duration::from_micros(delay * 50), call).await;
    }

    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'";
    eventually("no connection is busy or in a transaction", Duration::from_secs(1), async || {
        env.count(busy).await == 0
    })
    .await;
    // Cancelled calls may still arrive. Calls of one connection start in order, so another call
    // follows them all.
    let last = users.rename("ada", "last").await.unwrap();
    let changes = "SELECT version - 1 - (SELECT count(*) FROM cache_outbox) FROM user_account";
    eventually("each change has its outbox row", SOON, async || env.count(changes).await == 0).await;
    eventually("the last change is applied, though no relay runs", SOON, async || {
        let (read, stored) = (users.get("ada").await.unwrap(), users.get_strong("ada").await.unwrap());
        read.version == stored.version && read.version >= last.version && read.user == stored.user
    })
    .await;
}
