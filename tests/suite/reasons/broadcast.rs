//! The reasons of the broadcast service.

use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;

use super::{Reached, call, hurried, insist, of_every_server, of_tokens, overwrite, own_stack};
use crate::hostile::plain::Plain;
use crate::service::Service;

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
async fn every_reason_of_broadcast_is_reached() {
    let mut reached = Reached::of("broadcast");
    let stack = own_stack().await;
    let service = Service::on(stack, "broadcast", &["--max-open-streams", "1"], &[]).await;
    let plain = Plain::connect(service.address).await;

    reached.note("INVALID_FIELDS", call(&plain, "GetChannel", &get("no//segment")).await);
    call(&plain, "Publish", &publish("hello")).await.unwrap();
    reached.note("REQUEST_ID_REUSED", call(&plain, "Publish", &publish("something else")).await);
    of_every_server(&mut reached, &service, "GetChannel", &get("lobby")).await;
    of_tokens(&mut reached, stack, "broadcast", "GetChannel").await;

    let listening = BroadcastServiceClient::new(service.channel().await).subscribe(subscribe()).await.unwrap();
    reached.note_retry("OVERLOADED", call(&plain, "Subscribe", &subscribe()).await);
    drop(listening);

    stack.redis().pause();
    let late = hurried(&plain, "GetChannel", &get("lobby")).await;
    let away = insist(&plain, "GetChannel", &get("lobby"), "STATE_AWAY").await;
    stack.redis().resume();
    reached.note("DEADLINE_EXCEEDED", late);
    reached.note_retry("STATE_AWAY", away);

    overwrite(stack, &service, "broadcast:m:{lobby}");
    reached.note("INTERNAL", insist(&plain, "GetChannel", &get("lobby"), "INTERNAL").await);

    reached.assert_all();
}
