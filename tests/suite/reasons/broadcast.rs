//! Covers the reasons of the broadcast service.

use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;

use super::{
    ReasonCoverage, call, call_until_reason, call_with_short_deadline, cover_server_reasons, cover_token_reasons,
    overwrite_key, own_stack,
};
use crate::hostile::grpc_client::GrpcClient;
use crate::service::TestService;

fn get(channel: &str) -> pb::GetChannelRequest {
    pb::GetChannelRequest { name: channel.to_owned() }
}

fn publish(data: &'static str) -> pb::PublishRequest {
    pb::PublishRequest {
        channel: "lobby".to_owned(),
        data: data.into(),
        request_id: "r1".to_owned(),
        ..Default::default()
    }
}

fn subscribe() -> pb::SubscribeRequest {
    pb::SubscribeRequest { channels: vec![pb::ChannelStart { channel: "lobby".to_owned(), start: None }] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_broadcast_is_covered() {
    let mut coverage = ReasonCoverage::new("broadcast");
    let stack = own_stack().await;
    let service = TestService::start_on(stack, "broadcast", &["--max-open-streams", "1"], &[]).await;
    let client = GrpcClient::connect(service.address).await;

    coverage.record("INVALID_FIELDS", call(&client, "GetChannel", &get("no//segment")).await);
    call(&client, "Publish", &publish("hello")).await.unwrap();
    coverage.record("REQUEST_ID_REUSED", call(&client, "Publish", &publish("something else")).await);
    cover_server_reasons(&mut coverage, &service, "GetChannel", &get("lobby")).await;
    cover_token_reasons(&mut coverage, stack, "broadcast", "GetChannel").await;

    let subscription = BroadcastServiceClient::new(service.channel().await).subscribe(subscribe()).await.unwrap();
    coverage.record_with_retry("OVERLOADED", call(&client, "Subscribe", &subscribe()).await);
    drop(subscription);

    stack.redis().pause();
    let late = call_with_short_deadline(&client, "GetChannel", &get("lobby")).await;
    let unavailable = call_until_reason(&client, "GetChannel", &get("lobby"), "STATE_AWAY").await;
    stack.redis().resume();
    coverage.record("DEADLINE_EXCEEDED", late);
    coverage.record_with_retry("STATE_AWAY", unavailable);

    overwrite_key(stack, &service, "broadcast:m:{lobby}");
    coverage.record("INTERNAL", call_until_reason(&client, "GetChannel", &get("lobby"), "INTERNAL").await);

    coverage.assert_complete();
}
