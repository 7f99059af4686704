//! Postgres restored from an older copy, beside a Redis and subscribers that have seen more.

use tidings_devstack::testing::{eventually, own_stack};

use crate::support::client::{newest_with_min_seq, text};
use crate::support::fake_broadcast::FakeBroadcast;
use crate::support::{HistoryCluster, seqs};

/// The services go on without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_has_no_ghosts_and_new_messages_arrive() {
    let (stack, broadcast) = (own_stack().await, FakeBroadcast::start().await);
    let cluster = HistoryCluster::start_on(&stack, 2, |_, config| broadcast.attach(config)).await;
    let database = cluster.database.rsplit('/').next().unwrap();
    cluster.create("lobby").await;
    for key in ["one", "two", "three"] {
        cluster.say("lobby", "ada", key).await;
    }
    cluster.wait_until_relayed().await;
    stack.postgres().back_up_database(database, "copy").await.unwrap();
    for key in ["lost-four", "lost-five"] {
        cluster.append_with_retry(text("lobby", "ada", key, key)).await;
    }
    cluster.wait_until_relayed().await;
    for index in 0..2 {
        assert_eq!(seqs(&cluster.client(index).newest("lobby", 9).await.messages), [1, 2, 3, 4, 5]);
    }

    stack.postgres().restore_database(database, "copy").await.unwrap();

    for index in 0..2 {
        eventually("no message is shown that Postgres has lost", async || {
            let page = cluster.client(index).list(newest_with_min_seq("lobby", 0, 9)).await;
            page.is_ok_and(|page| seqs(&page.messages) == [1, 2, 3])
        })
        .await;
    }
    cluster.append_with_retry(text("lobby", "ada", "new", "new")).await;
    for index in 0..2 {
        let page = cluster.client(index).list(newest_with_min_seq("lobby", 4, 9)).await.unwrap();
        assert_eq!(page.messages, cluster.truth("lobby").await, "at instance {index}");
    }
    eventually("the new message is published", async || {
        broadcast.published("lobby").last() == cluster.truth("lobby").await.last()
    })
    .await;
    assert_eq!(seqs(&broadcast.published("lobby")), [1, 2, 3, 4, 5, 4]);
}
