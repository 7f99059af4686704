//! What is committed is published: in order, through outages, by whichever instance is there.

use std::time::Duration;

use tidings_devstack::testing;
use tidings_history::Config;
use tidings_proto::history::Message;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tonic::transport::Endpoint;

use crate::support::broadcaster::Broadcaster;
use crate::support::client::{Source, source, text};
use crate::support::{Histories, NEVER, assert_numbered_from, eventually, own_stack, seqs};

/// Instances that publish to a broadcaster.
async fn publishing(instances: usize, tune: impl Fn(usize, &mut Config)) -> (Histories<'static>, Broadcaster) {
    let broadcaster = Broadcaster::start().await;
    let histories = Histories::start_on(testing::shared().await, instances, |place, config| {
        broadcaster.hears(config);
        tune(place, config);
    })
    .await;
    (histories, broadcaster)
}

/// Waits until as many messages are published as there are, and compares them with Postgres.
async fn assert_all_published_once(histories: &Histories<'_>, broadcaster: &Broadcaster, conversation: &str) {
    let truth = histories.truth(conversation).await;
    eventually("all are published", async || broadcaster.published(conversation).len() >= truth.len()).await;
    assert_eq!(broadcaster.published(conversation), truth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_committed_message_is_published_once_and_in_the_order_of_its_number() {
    let (histories, broadcaster) = publishing(2, |_, _| {}).await;
    for conversation in 0..20 {
        histories.create(&format!("c{conversation}")).await;
    }

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..10 {
        let client = histories.client(writer % 2);
        writers.spawn(async move {
            for key in 0..40 {
                client.say(&format!("c{}", (writer + key) % 20), &format!("w{writer}"), &key.to_string()).await;
            }
        });
    }
    writers.join_all().await;

    for conversation in 0..20 {
        assert_all_published_once(&histories, &broadcaster, &format!("c{conversation}")).await;
    }
    histories.settled().await;
}

#[tokio::test]
async fn a_batch_of_the_largest_legal_messages_is_published() {
    let (histories, broadcaster) = publishing(1, |_, _| {}).await;
    histories.create("lobby").await;
    let request = |key: usize| {
        let mut request = text("lobby", "ada", &key.to_string(), &"x".repeat(32 * 1024));
        request.attributes = (0..32).map(|name| (format!("{name:02}"), "y".repeat(126))).collect();
        request
    };

    for batch in 0..2 {
        histories.batch((0..55).map(|key| request(100 * batch + key)).collect()).await.unwrap();
    }

    assert_all_published_once(&histories, &broadcaster, "lobby").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_broadcast_is_away_appends_succeed_and_the_outbox_grows_and_drains_afterwards() {
    let (histories, broadcaster) = publishing(2, |_, _| {}).await;
    histories.create("lobby").await;
    histories.say("lobby", "ada", "before").await;
    histories.settled().await;
    let health = async || relay_health(&histories).await;
    eventually("the relay does its job", async || health().await == ServingStatus::Serving).await;

    broadcaster.fails(|faults| faults.away = true);
    for key in 0..30 {
        histories.client(key % 2).say("lobby", "ada", &key.to_string()).await;
    }
    assert_eq!(histories.count("SELECT count(*) FROM outbox").await, 30);
    eventually("the relay says that it does not", async || health().await == ServingStatus::NotServing).await;
    assert_eq!(histories.count("SELECT count(*) FROM outbox WHERE attempts > 0").await, 0, "that is no row's fault");
    assert_eq!(seqs(&broadcaster.published("lobby")), [1]);

    broadcaster.fails(|faults| faults.away = false);
    histories.settled().await;
    assert_all_published_once(&histories, &broadcaster, "lobby").await;
    eventually("the relay does its job again", async || health().await == ServingStatus::Serving).await;
}

async fn relay_health(histories: &Histories<'_>) -> ServingStatus {
    let endpoint = Endpoint::from_shared(format!("http://{}", histories.address(0))).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let request = HealthCheckRequest { service: "relay".to_owned() };
    health.check(request).await.map_or(ServingStatus::Unknown, |answer| answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_broadcast_refuses_holds_up_its_conversation_until_it_is_parked() {
    for breaks in [false, true] {
        let (histories, broadcaster) = publishing(1, |_, config| config.relay.history_park_after = 40).await;
        broadcaster.fails(|faults| {
            faults.poison.insert(("conversation/sick".to_owned(), "2.1".to_owned()));
            faults.poison_breaks = breaks;
        });
        for conversation in ["sick", "well"] {
            histories.create(conversation).await;
        }
        for key in 0..5 {
            for conversation in ["sick", "well"] {
                histories.say(conversation, "ada", &key.to_string()).await;
            }
        }

        // A broken broadcast is told from a broken row by what it does for others: there has to be something for others.
        let mut more = 5;
        let parked = "SELECT count(*) FROM outbox WHERE park_time IS NOT NULL AND error IS NOT NULL";
        eventually("it is parked", async || {
            let held_up = broadcaster.published("sick").len() <= 1;
            let is_parked = histories.count(parked).await == 1;
            assert!(held_up || is_parked, "{:?}", seqs(&broadcaster.published("sick")));
            histories.say("well", "ada", &more.to_string()).await;
            more += 1;
            is_parked
        })
        .await;

        eventually("the later ones follow", async || seqs(&broadcaster.published("sick")) == [1, 3, 4, 5]).await;
        assert_all_published_once(&histories, &broadcaster, "well").await;
        assert_eq!(histories.count("SELECT count(*) FROM outbox WHERE park_time IS NULL").await, 0);
        assert_eq!(seqs(&histories.newest("sick", 9).await.messages), [1, 2, 3, 4, 5], "readers miss nothing");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let (histories, broadcaster) = publishing(2, |_, _| {}).await;
    histories.create("lobby").await;
    for key in 0..20 {
        broadcaster.fails(|faults| faults.lost_answers = 1);
        histories.say("lobby", "ada", &key.to_string()).await;
    }

    histories.settled().await;
    assert_all_published_once(&histories, &broadcaster, "lobby").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_the_shards_and_one_that_leaves_hands_its_own_over() {
    let (mut histories, broadcaster) = publishing(2, |_, _| {}).await;
    let shares = async |histories: &Histories<'_>, expected: i64| {
        let each = histories
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
    eventually("each has eight", async || shares(&histories, 808).await).await;

    histories.create("lobby").await;
    for round in 0..4 {
        histories.restart(round % 2).await;
        for key in 0..10 {
            histories.client(round % 2).say("lobby", "ada", &format!("{round}-{key}")).await;
        }
    }

    assert_all_published_once(&histories, &broadcaster, "lobby").await;
    eventually("each has eight again", async || shares(&histories, 808).await).await;
}

#[tokio::test]
async fn a_commit_wakes_the_relay_of_whichever_instance_has_the_shard() {
    let (histories, broadcaster) = publishing(2, |_, config| config.relay.history_relay_tick = NEVER.into()).await;
    for conversation in 0..32 {
        histories.create(&format!("c{conversation}")).await;
    }
    // Each of the two has leased at its start; neither will look again unless it is told.
    eventually("one hears the other", async || {
        histories.say("c0", "ada", &uuid::Uuid::new_v4().to_string()).await;
        histories.say("c1", "ada", &uuid::Uuid::new_v4().to_string()).await;
        !broadcaster.published("c0").is_empty() && !broadcaster.published("c1").is_empty()
    })
    .await;

    for conversation in 2..32 {
        histories.say(&format!("c{conversation}"), "ada", "x").await;
    }

    // On a machine that stood still a lease may have run out: then it takes another commit, and no more than that.
    for conversation in (2..32).map(|number| format!("c{number}")) {
        let told = async || !broadcaster.published(&conversation).is_empty();
        if tokio::time::timeout(Duration::from_secs(5), eventually("it is told", told)).await.is_err() {
            histories.say(&conversation, "ada", "y").await;
        }
    }
    for conversation in 2..32 {
        assert_all_published_once(&histories, &broadcaster, &format!("c{conversation}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_published_while_redis_is_away_and_the_tail_hears_of_them_afterwards() {
    let (stack, broadcaster) = (own_stack().await, Broadcaster::start().await);
    let histories = Histories::start_on(&stack, 1, |_, config| {
        broadcaster.hears(config);
        config.redis.redis_timeout = Some(Duration::from_millis(100).into());
    })
    .await;
    histories.fill("lobby", 5).await;
    histories.newest("lobby", 5).await;

    stack.redis().pause();
    for key in 0..3 {
        histories.say("lobby", "ada", &format!("away-{key}")).await;
    }
    let all: fn(&[Message]) -> bool = |messages| messages.len() == 8;
    eventually("they are published", async || all(&broadcaster.published("lobby"))).await;
    assert_numbered_from(1, &broadcaster.published("lobby"));
    stack.redis().resume();

    histories.settled().await;
    let page = histories.newest("lobby", 8).await;
    assert_eq!((page.last_seq, page.messages.len()), (8, 8));
    eventually("the tail is there again", async || {
        source(histories.newest("lobby", 8).await.read_info) == Source::Redis
    })
    .await;
    assert_all_published_once(&histories, &broadcaster, "lobby").await;
}
