//! A client whose calls read like sentences, and the requests that tests send most.

use std::net::SocketAddr;

use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::channel_start::Start;
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::ear::Ear;
use super::{PATIENCE, eventually};

pub(crate) use tidings_proto::broadcast::batch_publish_result::Outcome;

/// An answer, or why there is none.
pub(crate) type Answer<T> = Result<T, Box<Failure>>;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    broadcasts: BroadcastServiceClient<Channel>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self::over(&endpoint(address))
    }

    /// A client that takes no more than 64 KiB unread, as those of other languages do.
    pub(super) fn narrow(address: SocketAddr) -> Self {
        Self::over(&endpoint(address).initial_stream_window_size(65_535).initial_connection_window_size(65_535))
    }

    fn over(endpoint: &Endpoint) -> Self {
        let channel = endpoint.connect_lazy();
        Self { broadcasts: BroadcastServiceClient::new(channel.clone()), channel }
    }

    /// Waits until the instance answers, with or without Redis.
    pub(super) async fn reachable(&self) {
        eventually("the instance answers", async || match self.get("reachable").await {
            Ok(_) => true,
            Err(failure) => failure.reason == "STATE_AWAY",
        })
        .await;
    }

    pub(crate) async fn publish(&self, request: pb::PublishRequest) -> Answer<pb::PublishResponse> {
        answer(self.broadcasts.clone().publish(request).await)
    }

    /// Publishes a text; returns its place.
    pub(crate) async fn say(&self, channel: &str, text: &str) -> (String, i64) {
        let published = self.publish(saying(channel, text)).await.unwrap();
        (published.epoch, published.offset)
    }

    /// Publishes the numbers from `first` to `last` as texts; returns the place of the last.
    pub(crate) async fn count(&self, channel: &str, first: i64, last: i64) -> (String, i64) {
        let mut place = (String::new(), 0);
        let numbers: Vec<_> = (first..=last).collect();
        for numbers in numbers.chunks(500) {
            let requests = numbers.iter().map(|number| saying(channel, &number.to_string())).collect();
            place = published(self.batch(requests).await.unwrap().last().unwrap());
        }
        place
    }

    /// Publishes as a good caller does: again under the same request id, until there is an answer.
    pub(crate) async fn insist(&self, request: pb::PublishRequest) -> pb::PublishResponse {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.publish(request.clone()).await {
                Ok(published) => return published,
                Err(failure) => {
                    assert_eq!(failure.code, Code::Unavailable, "{failure}");
                    assert!(Instant::now() < until, "no answer within {PATIENCE:?}: {failure}");
                    tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
                }
            }
        }
    }

    pub(crate) async fn batch(&self, requests: Vec<pb::PublishRequest>) -> Answer<Vec<Outcome>> {
        let request = pb::BatchPublishRequest { requests };
        let done = answer(self.broadcasts.clone().batch_publish(request).await)?;
        Ok(done.results.into_iter().map(|result| result.outcome.unwrap()).collect())
    }

    pub(crate) async fn get(&self, name: &str) -> Answer<pb::Channel> {
        let request = pb::GetChannelRequest { name: name.to_owned() };
        Ok(answer(self.broadcasts.clone().get_channel(request).await)?.channel.unwrap())
    }

    pub(crate) async fn try_subscribe(&self, channels: Vec<pb::ChannelStart>) -> Answer<Ear> {
        let request = pb::SubscribeRequest { channels };
        Ok(Ear::new(answer(self.broadcasts.clone().subscribe(request).await)?))
    }

    /// Subscribes to one channel.
    pub(crate) async fn subscribe(&self, start: pb::ChannelStart) -> Ear {
        self.try_subscribe(vec![start]).await.unwrap()
    }

    /// Subscribes as a good caller does: again until there is a stream.
    pub(crate) async fn insist_on_stream(&self, channels: Vec<pb::ChannelStart>) -> Ear {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_subscribe(channels.clone()).await {
                Ok(ear) => return ear,
                Err(failure) => {
                    assert_eq!(failure.code, Code::Unavailable, "{failure}");
                    assert!(Instant::now() < until, "no stream within {PATIENCE:?}: {failure}");
                    tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
                }
            }
        }
    }

    /// Subscribes from the latest on, and waits until it has caught up.
    pub(crate) async fn listen(&self, channel: &str) -> Ear {
        let mut ear = self.subscribe(latest(channel)).await;
        ear.caught_up().await;
        ear
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// A request to publish a text.
pub(crate) fn saying(channel: &str, text: &str) -> pb::PublishRequest {
    pb::PublishRequest { channel: channel.to_owned(), data: text.to_owned().into(), ..Default::default() }
}

/// A request to publish a text under a request id.
pub(crate) fn keyed(channel: &str, text: &str, request_id: &str) -> pb::PublishRequest {
    pb::PublishRequest { request_id: request_id.to_owned(), ..saying(channel, text) }
}

/// From the latest on.
pub(crate) fn latest(channel: &str) -> pb::ChannelStart {
    pb::ChannelStart { channel: channel.to_owned(), start: None }
}

/// From a position on.
pub(crate) fn after(channel: &str, epoch: &str, offset: i64) -> pb::ChannelStart {
    let position = pb::Position { epoch: epoch.to_owned(), offset };
    pb::ChannelStart { start: Some(Start::Position(position)), ..latest(channel) }
}

/// Everything that a channel ever had.
pub(crate) fn everything(channel: &str) -> pb::ChannelStart {
    after(channel, "", 0)
}

/// The last so many.
pub(crate) fn last(channel: &str, count: i32) -> pb::ChannelStart {
    pb::ChannelStart { start: Some(Start::Last(count)), ..latest(channel) }
}

/// The place of an item that was published.
pub(crate) fn published(outcome: &Outcome) -> (String, i64) {
    match outcome {
        Outcome::Published(published) => (published.epoch.clone(), published.offset),
        Outcome::Failure(failure) => panic!("refused: {failure:?}"),
    }
}

fn answer<T>(response: Result<Response<T>, Status>) -> Answer<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}
