//! Callers that go away in the middle of a call.

use std::time::Duration;

use super::support::{SOON, World, eventually, renaming};

/// Pauses between the beginning of a call and its end by the caller, in microseconds: from "not sent yet" to "almost
/// answered".
const PAUSES: std::ops::Range<u64> = 0..120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_caller_leaves_no_half_done_write() {
    let world = World::shared().await;
    world
        .execute(
            "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
         VALUES ('ada', '', 'Ada', '', '', '{}', 1)",
        )
        .await;
    let users = world.serve_without_relay().await;
    users.cache("ada").await;

    for pause in PAUSES {
        let mut client = users.client();
        let call = async move { client.update_user(renaming("ada", &format!("name {pause}"))).await.map(drop) };
        let _given_up = tokio::time::timeout(Duration::from_micros(pause * 50), call).await;
    }

    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'";
    eventually("no connection is busy or in a transaction", Duration::from_secs(1), async || {
        world.count(busy).await == 0
    })
    .await;
    // Calls may still be on their way: those of one connection are begun in their order, so one more ends the row.
    let last = users.rename("ada", "last").await.unwrap();
    let changes = "SELECT version - 1 - (SELECT count(*) FROM cache_outbox) FROM user_account";
    eventually("each change has its row in the outbox", SOON, async || world.count(changes).await == 0).await;
    eventually("the cache has heard of the last change, though no relay runs", SOON, async || {
        let (read, stored) = (users.get("ada").await.unwrap(), users.get_strong("ada").await.unwrap());
        read.version == stored.version && read.version >= last.version && read.user == stored.user
    })
    .await;
}
