//! Many streams of one client, and the age of their connections.

use std::time::Duration;

use tidings_client::{Caller, Endpoints, Event, Policy, Start, Subscription};
use tidings_devstack::testing::PATIENCE;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::goodbye::Reason;
use tidings_proto::broadcast::subscribe_response::Frame;
use tonic::Code;

use crate::support::BroadcastCluster;
use crate::support::client::{latest, text_message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_holds_300_subscriptions_and_publishes() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.server.max_streams = Some(100)).await;
    let endpoints = Endpoints::new(&cluster.address(0).to_string().parse().unwrap());
    let mut subscriptions = Vec::new();
    for _ in 0..300 {
        let mut subscription = Subscription::open(&endpoints, vec![Start::latest("lobby")]).with_patience(PATIENCE);
        assert!(matches!(subscription.next().await.unwrap(), Event::CaughtUp(_)));
        subscriptions.push(subscription);
    }

    let caller = Caller::new(endpoints, Policy { timeout: PATIENCE, ..Policy::default() });
    let publish = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
    caller.call("Publish", &text_message("lobby", "hello"), publish).await.unwrap();

    for subscription in &mut subscriptions {
        let Event::Message(message) = subscription.next().await.unwrap() else { panic!("no message") };
        assert_eq!(message.data, "hello");
    }
}

#[tokio::test]
async fn streams_leave_room_for_publishes_of_a_connection() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.server.max_streams = Some(4)).await;
    let mut streams = [cluster.listen("lobby").await, cluster.listen("lobby").await, cluster.listen("lobby").await];

    let refused = cluster.try_subscribe(vec![latest("lobby")]).await.err().unwrap();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.message.contains("on this connection: at most 3"), "{}", refused.message);
    cluster.publish_text("lobby", "hello").await;
    for stream in &mut streams {
        assert_eq!(stream.text().await, "hello");
    }
}

/// The client may return to the same instance at once.
#[tokio::test]
async fn a_goodbye_names_the_age_of_the_connection() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.server.connection_age = Duration::from_millis(300).into();
        config.server.connection_grace = Duration::from_secs(1).into();
    })
    .await;

    let mut stream = cluster.new_client(0).subscribe(latest("lobby")).await;

    let goodbye = loop {
        if let Frame::Goodbye(goodbye) = stream.frame().await {
            break goodbye;
        }
    };
    assert_eq!(goodbye.reason(), Reason::ConnectionAge);
    assert_eq!(Duration::try_from(goodbye.retry_after.unwrap()).unwrap(), Duration::ZERO);
}
