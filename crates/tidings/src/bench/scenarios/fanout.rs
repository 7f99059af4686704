//! From a publish to the last of those who listen.

use std::sync::Arc;

use tidings_client::within;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{ChannelStart, SubscribeRequest, SubscribeResponse};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use super::broadcast::send;
use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fanout, Fault, Turn};

/// Publishes a message, and waits until the last subscriber has it.
pub(super) async fn subscribe(ground: Arc<Ground>) -> Result<Call, Fault> {
    let fanout = Arc::new(Fanout::new(ground.callers, ground.shape.subscribers.into()));
    let listening = each(ground.shape.subscribers.into(), |turn| listen(&ground, Arc::clone(&fanout), turn)).await?;
    let listening = Arc::new(listening); // they end with the calls
    Ok(calls(&ground, move |ground, turn| {
        let (fanout, _listening) = (Arc::clone(&fanout), Arc::clone(&listening));
        async move {
            let publish = |data: Vec<u8>| async {
                send(&ground, turn, ground.run.clone(), data.into()).await?;
                Ok(())
            };
            let delivered = fanout.deliver(turn, ground.text().into_bytes(), publish);
            let late = || Status::deadline_exceeded(format!("not delivered to all within {:?}", ground.timeout));
            timeout(ground.timeout, delivered).await.map_err(|_| late())?
        }
    }))
}

/// Begins a subscription and waits until it is live.
async fn listen(ground: &Ground, fanout: Arc<Fanout>, turn: Turn) -> Result<AbortOnDropHandle<()>, Fault> {
    let endpoint = &ground.listeners[turn.caller % ground.listeners.len()];
    let channels = vec![ChannelStart { channel: ground.run.clone(), start: None }];
    let mut request = Request::new(SubscribeRequest { channels });
    endpoint.authorize(&mut request);
    let begin = async {
        let mut stream = BroadcastServiceClient::new(endpoint.channel()).subscribe(request).await?.into_inner();
        while !matches!(next(&mut stream).await?.frame, Some(Frame::CaughtUp(_))) {}
        Ok(stream)
    };
    let mut stream = within(ground.timeout, begin).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let fault = loop {
            match next(&mut stream).await.map(|response| response.frame) {
                Ok(Some(Frame::Messages(batch))) => batch.messages.iter().for_each(|message| fanout.got(&message.data)),
                Ok(Some(Frame::Gap(_))) => break Fault::answer("GAP"),
                Ok(Some(Frame::Reset(_))) => break Fault::answer("RESET"),
                Ok(Some(Frame::Goodbye(_))) => break Fault::answer("GOODBYE"),
                Ok(Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None) => {}
                Err(status) => break status.into(),
            }
        };
        fanout.broken(fault);
    })))
}

async fn next(stream: &mut Streaming<SubscribeResponse>) -> Result<SubscribeResponse, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
}
