//! The relay publishes every committed message: in order, through outages, from any instance.

use std::time::Duration;

use tidings_devstack::testing::{self, NEVER, eventually, own_stack};
use tidings_history::Config;
use tidings_proto::history::Message;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tonic::transport::Endpoint;

use crate::support::client::{Source, source, text};
use crate::support::fake_broadcast::FakeBroadcast;
use crate::support::{HistoryCluster, assert_numbered_from, seqs};

/// Starts instances that publish to a fake broadcast service.
async fn publishing(instances: usize, tune: impl Fn(usize, &mut Config)) -> (HistoryCluster<'static>, FakeBroadcast) {
    let broadcast = FakeBroadcast::start().await;
    let cluster = HistoryCluster::start_on(testing::shared().await, instances, |index, config| {
        broadcast.attach(config);
        tune(index, config);
    })
    .await;
    (cluster, broadcast)
}

/// Waits until all messages of a conversation are published, and compares them with Postgres.
async fn assert_all_published_once(cluster: &HistoryCluster<'_>, broadcast: &FakeBroadcast, conversation: &str) {
    let truth = cluster.truth(conversation).await;
    eventually("all messages are published", async || broadcast.published(conversation).len() >= truth.len()).await;
    assert_eq!(broadcast.published(conversation), truth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_published_once_in_order_of_its_seq() {
    let (cluster, broadcast) = publishing(2, |_, _| {}).await;
    for conversation in 0..20 {
        cluster.create(&format!("c{conversation}")).await;
    }

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..10 {
        let client = cluster.client(writer % 2);
        writers.spawn(async move {
            for key in 0..40 {
                client.say(&format!("c{}", (writer + key) % 20), &format!("w{writer}"), &key.to_string()).await;
            }
        });
    }
    writers.join_all().await;

    for conversation in 0..20 {
        assert_all_published_once(&cluster, &broadcast, &format!("c{conversation}")).await;
    }
    cluster.wait_until_relayed().await;
}

#[tokio::test]
async fn a_batch_of_the_largest_legal_messages_is_published() {
    let (cluster, broadcast) = publishing(1, |_, _| {}).await;
    cluster.create("lobby").await;
    let request = |key: usize| {
        let mut request = text("lobby", "ada", &key.to_string(), &"x".repeat(32 * 1024));
        request.attributes = (0..32).map(|name| (format!("{name:02}"), "y".repeat(126))).collect();
        request
    };

    for batch in 0..2 {
        cluster.batch((0..55).map(|key| request(100 * batch + key)).collect()).await.unwrap();
    }

    assert_all_published_once(&cluster, &broadcast, "lobby").await;
}

/// The outbox drains once broadcast is available again. The health entry `relay` follows both
/// changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_broadcast_appends_succeed_and_the_outbox_grows() {
    let (cluster, broadcast) = publishing(2, |_, _| {}).await;
    cluster.create("lobby").await;
    cluster.say("lobby", "ada", "before").await;
    cluster.wait_until_relayed().await;
    let health = async || relay_health(&cluster).await;
    eventually("the relay is healthy", async || health().await == ServingStatus::Serving).await;

    broadcast.set_faults(|faults| faults.unavailable = true);
    for key in 0..30 {
        cluster.client(key % 2).say("lobby", "ada", &key.to_string()).await;
    }
    assert_eq!(cluster.count("SELECT count(*) FROM outbox").await, 30);
    eventually("the relay is unhealthy", async || health().await == ServingStatus::NotServing).await;
    assert_eq!(
        cluster.count("SELECT count(*) FROM outbox WHERE attempts > 0").await,
        0,
        "an outage does not count as a refusal"
    );
    assert_eq!(seqs(&broadcast.published("lobby")), [1]);

    broadcast.set_faults(|faults| faults.unavailable = false);
    cluster.wait_until_relayed().await;
    assert_all_published_once(&cluster, &broadcast, "lobby").await;
    eventually("the relay is healthy again", async || health().await == ServingStatus::Serving).await;
}

async fn relay_health(cluster: &HistoryCluster<'_>) -> ServingStatus {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.address(0))).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let request = HealthCheckRequest { service: "relay".to_owned() };
    health.check(request).await.map_or(ServingStatus::Unknown, |response| response.into_inner().status())
}

/// Other conversations are published meanwhile. This holds for a refusal and for an internal error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_blocks_its_conversation_until_parked() {
    for internal in [false, true] {
        let (cluster, broadcast) = publishing(1, |_, config| config.relay.history_park_after = 40).await;
        broadcast.set_faults(|faults| {
            faults.refused.insert(("conversation/blocked".to_owned(), "2.1".to_owned()));
            faults.refuse_as_internal = internal;
        });
        for conversation in ["blocked", "healthy"] {
            cluster.create(conversation).await;
        }
        for key in 0..5 {
            for conversation in ["blocked", "healthy"] {
                cluster.say(conversation, "ada", &key.to_string()).await;
            }
        }

        // The relay blames a row for an internal error only if broadcast accepts other rows. So
        // other rows must exist.
        let mut more = 5;
        let parked = "SELECT count(*) FROM outbox WHERE park_time IS NOT NULL AND error IS NOT NULL";
        eventually("the row is parked", async || {
            let is_blocked = broadcast.published("blocked").len() <= 1;
            let is_parked = cluster.count(parked).await == 1;
            assert!(is_blocked || is_parked, "{:?}", seqs(&broadcast.published("blocked")));
            cluster.say("healthy", "ada", &more.to_string()).await;
            more += 1;
            is_parked
        })
        .await;

        eventually("the later messages are published", async || seqs(&broadcast.published("blocked")) == [1, 3, 4, 5])
            .await;
        assert_all_published_once(&cluster, &broadcast, "healthy").await;
        assert_eq!(cluster.count("SELECT count(*) FROM outbox WHERE park_time IS NULL").await, 0);
        assert_eq!(seqs(&cluster.newest("blocked", 9).await.messages), [1, 2, 3, 4, 5], "readers get all messages");
    }
}

#[tokio::test]
async fn a_publish_with_a_lost_response_is_retried_with_its_key() {
    let (cluster, broadcast) = publishing(2, |_, _| {}).await;
    cluster.create("lobby").await;
    for key in 0..20 {
        broadcast.set_faults(|faults| faults.lost_responses = 1);
        cluster.say("lobby", "ada", &key.to_string()).await;
    }

    cluster.wait_until_relayed().await;
    assert_all_published_once(&cluster, &broadcast, "lobby").await;
}

/// A publisher that guesses a key delays a message, and does not suppress it.
#[tokio::test]
async fn a_message_whose_key_is_taken_is_published_under_another() {
    let (cluster, broadcast) = publishing(1, |_, _| {}).await;
    cluster.create("lobby").await;
    broadcast.set_faults(|faults| faults.taken = 2); // in a batch, and alone

    cluster.say("lobby", "ada", "hello").await;

    cluster.wait_until_relayed().await;
    assert_all_published_once(&cluster, &broadcast, "lobby").await;
}

/// As after a restore of Postgres from an older copy.
#[tokio::test]
async fn a_message_with_a_number_given_before_is_published() {
    let (cluster, broadcast) = publishing(1, |_, _| {}).await;
    cluster.create("lobby").await;
    for key in 0..3 {
        cluster.say("lobby", "ada", &key.to_string()).await;
    }
    cluster.wait_until_relayed().await;
    cluster.execute("DELETE FROM message WHERE seq = 3; UPDATE conversation SET last_seq = 2").await;

    cluster.say("lobby", "ada", "another").await;

    cluster.wait_until_relayed().await;
    let published = broadcast.published("lobby");
    assert_eq!(seqs(&published), [1, 2, 3, 3]);
    assert_eq!(published.last(), cluster.truth("lobby").await.last());
}

/// An instance that stops releases its shards to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_the_shards_and_hand_them_over() {
    let (mut cluster, broadcast) = publishing(2, |_, _| {}).await;
    let shares = async |cluster: &HistoryCluster<'_>, expected: i64| {
        let each = cluster
            .count(
                "SELECT coalesce(sum(power(100, place - 1) * shards), 0)::bigint
                 FROM (
                     SELECT row_number() OVER (ORDER BY count(*)) AS place, count(*) AS shards
                     FROM relay_shard
                     WHERE lease_until > now()
                     GROUP BY worker
                 ) AS shares",
            )
            .await;
        each == expected
    };
    eventually("each instance leases eight shards", async || shares(&cluster, 808).await).await;

    cluster.create("lobby").await;
    for round in 0..4 {
        cluster.restart(round % 2).await;
        for key in 0..10 {
            cluster.client(round % 2).say("lobby", "ada", &format!("{round}-{key}")).await;
        }
    }

    assert_all_published_once(&cluster, &broadcast, "lobby").await;
    eventually("each instance leases eight shards again", async || shares(&cluster, 808).await).await;
}

/// The relay may run on another instance than the append.
#[tokio::test]
async fn a_commit_wakes_the_relay_that_leases_its_shard() {
    let (cluster, broadcast) = publishing(2, |_, config| config.relay.history_relay_tick = NEVER.into()).await;
    for conversation in 0..32 {
        cluster.create(&format!("c{conversation}")).await;
    }
    // Both instances leased shards at their start. Neither relays again without a notification.
    eventually("both instances receive notifications", async || {
        cluster.say("c0", "ada", &uuid::Uuid::new_v4().to_string()).await;
        cluster.say("c1", "ada", &uuid::Uuid::new_v4().to_string()).await;
        !broadcast.published("c0").is_empty() && !broadcast.published("c1").is_empty()
    })
    .await;

    for conversation in 2..32 {
        cluster.say(&format!("c{conversation}"), "ada", "x").await;
    }

    // On a machine that stalled, a lease may have expired. Then one more commit is needed.
    for conversation in (2..32).map(|number| format!("c{number}")) {
        let is_published = async || !broadcast.published(&conversation).is_empty();
        if tokio::time::timeout(Duration::from_secs(5), eventually("the message is published", is_published))
            .await
            .is_err()
        {
            cluster.say(&conversation, "ada", "y").await;
        }
    }
    for conversation in 2..32 {
        assert_all_published_once(&cluster, &broadcast, &format!("c{conversation}")).await;
    }
}

/// The relay updates the tail once Redis is available again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_published_while_redis_is_unavailable() {
    let (stack, broadcast) = (own_stack().await, FakeBroadcast::start().await);
    let cluster = HistoryCluster::start_on(&stack, 1, |_, config| {
        broadcast.attach(config);
        config.redis.redis_timeout = Some(Duration::from_millis(100).into());
    })
    .await;
    cluster.fill("lobby", 5).await;
    cluster.newest("lobby", 5).await;

    stack.redis().pause();
    for key in 0..3 {
        cluster.say("lobby", "ada", &format!("away-{key}")).await;
    }
    let is_complete: fn(&[Message]) -> bool = |messages| messages.len() == 8;
    eventually("the messages are published", async || is_complete(&broadcast.published("lobby"))).await;
    assert_numbered_from(1, &broadcast.published("lobby"));
    stack.redis().resume();

    cluster.wait_until_relayed().await;
    let page = cluster.newest("lobby", 8).await;
    assert_eq!((page.last_seq, page.messages.len()), (8, 8));
    eventually("the newest page comes from the tail", async || {
        source(cluster.newest("lobby", 8).await.read_info) == Source::Redis
    })
    .await;
    assert_all_published_once(&cluster, &broadcast, "lobby").await;
}
