//! From a publish to the last of those who listen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tidings_client::within;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{ChannelStart, SubscribeRequest, SubscribeResponse};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use super::broadcast::send;
use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fault, Turn};

/// What the callers and the subscribers share: who has what was published.
struct Fanout {
    /// One a caller, who has one message under way at a time.
    places: Vec<Place>,
    /// Why a subscription ended, if one did: from then on nobody can have everything.
    broken: watch::Sender<Option<Fault>>,
    subscribers: u32,
}

/// The message that a caller has under way.
#[derive(Default)]
struct Place {
    number: AtomicU64,
    /// How many have not got it yet.
    missing: AtomicU32,
    whole: Notify,
}

/// Publishes a message, and waits until the last subscriber has it.
pub(super) async fn subscribe(ground: Arc<Ground>) -> Result<Call, Fault> {
    let places = (0..ground.callers).map(|_| Place::default()).collect();
    let subscribers = ground.shape.subscribers.into();
    let fanout = Arc::new(Fanout { places, broken: watch::Sender::new(None), subscribers });
    let listening = each(subscribers.into(), |turn| listen(&ground, Arc::clone(&fanout), turn)).await?;
    let listening = Arc::new(listening); // they end with the calls
    Ok(calls(&ground, move |ground, turn| {
        let (fanout, listening) = (Arc::clone(&fanout), Arc::clone(&listening));
        async move {
            let delivered = fanout.deliver(&ground, turn).await;
            drop(listening);
            delivered
        }
    }))
}

impl Fanout {
    async fn deliver(&self, ground: &Ground, turn: Turn) -> Result<u64, Fault> {
        let place = &self.places[turn.caller];
        place.missing.store(self.subscribers, Ordering::Relaxed);
        place.number.store(turn.number, Ordering::Release);
        let whole = place.whole.notified();
        let mut data = ground.text().into_bytes();
        data[..8].copy_from_slice(&turn.number.to_le_bytes());
        data[8..16].copy_from_slice(&(turn.caller as u64).to_le_bytes());
        let delivered = async {
            send(ground, turn, ground.run.clone(), data.into()).await?;
            tokio::select! {
                () = whole => Ok(u64::from(self.subscribers)),
                fault = self.broke() => Err(fault),
            }
        };
        let missing = || Status::deadline_exceeded(format!("not delivered to all within {:?}", ground.timeout));
        tokio::time::timeout(ground.timeout, delivered).await.map_err(|_| missing())?
    }

    /// Somebody has got a message.
    fn got(&self, data: &[u8]) {
        let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let (Some(number), Some(caller)) = (number(data.get(..8)), number(data.get(8..16))) else { return };
        let Some(place) = usize::try_from(caller).ok().and_then(|caller| self.places.get(caller)) else { return };
        // Nobody waits any more for what came after its caller gave up.
        if place.number.load(Ordering::Acquire) == number && place.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            place.whole.notify_waiters();
        }
    }

    async fn broke(&self) -> Fault {
        let mut broken = self.broken.subscribe();
        let fault = broken.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
        fault.unwrap_or_else(|| Fault::answer("the subscriptions have ended"))
    }
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
        fanout.broken.send_replace(Some(fault));
    })))
}

async fn next(stream: &mut Streaming<SubscribeResponse>) -> Result<SubscribeResponse, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
}
