//! A client for tests, and constructors of common requests.

use std::net::SocketAddr;

use tidings_devstack::testing::{PATIENCE, eventually};
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::channel_start::Start;
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::stream::FrameStream;

pub(crate) use tidings_proto::broadcast::batch_publish_result::Outcome;

/// The response of a call, or its failure.
pub(crate) type BroadcastResult<T> = Result<T, Box<Failure>>;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BroadcastClient {
    pub(crate) channel: Channel,
    service: BroadcastServiceClient<Channel>,
}

impl BroadcastClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self::over(&endpoint(address))
    }

    /// Makes a client with flow-control windows of 64 KiB, the default of other languages.
    pub(super) fn with_small_windows(address: SocketAddr) -> Self {
        Self::over(&endpoint(address).initial_stream_window_size(65_535).initial_connection_window_size(65_535))
    }

    fn over(endpoint: &Endpoint) -> Self {
        let channel = endpoint.connect_lazy();
        Self { service: BroadcastServiceClient::new(channel.clone()), channel }
    }

    /// Waits until the instance replies, with or without Redis.
    pub(super) async fn wait_until_reachable(&self) {
        eventually("the instance replies", async || match self.get("reachable").await {
            Ok(_) => true,
            Err(failure) => failure.reason == "STATE_AWAY",
        })
        .await;
    }

    pub(crate) async fn publish(&self, request: pb::PublishRequest) -> BroadcastResult<pb::PublishResponse> {
        result(self.service.clone().publish(request).await)
    }

    /// Publishes a text; returns its epoch and offset.
    pub(crate) async fn publish_text(&self, channel: &str, text: &str) -> (String, i64) {
        let published = self.publish(text_message(channel, text)).await.unwrap();
        (published.epoch, published.offset)
    }

    /// Publishes the numbers `first` to `last` as texts; returns the epoch and offset of the last.
    pub(crate) async fn publish_range(&self, channel: &str, first: i64, last: i64) -> (String, i64) {
        let mut last_position = (String::new(), 0);
        let numbers: Vec<_> = (first..=last).collect();
        for numbers in numbers.chunks(500) {
            let requests = numbers.iter().map(|number| text_message(channel, &number.to_string())).collect();
            last_position = published(self.batch(requests).await.unwrap().last().unwrap());
        }
        last_position
    }

    /// Publishes with a request id, and retries until there is a response.
    pub(crate) async fn publish_with_retry(&self, request: pb::PublishRequest) -> pb::PublishResponse {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.publish(request.clone()).await {
                Ok(published) => return published,
                Err(failure) => {
                    assert_eq!(failure.code, Code::Unavailable, "{failure}");
                    assert!(Instant::now() < until, "no response within {PATIENCE:?}: {failure}");
                    tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
                }
            }
        }
    }

    pub(crate) async fn batch(&self, requests: Vec<pb::PublishRequest>) -> BroadcastResult<Vec<Outcome>> {
        let request = pb::BatchPublishRequest { requests };
        let response = result(self.service.clone().batch_publish(request).await)?;
        Ok(response.results.into_iter().map(|result| result.outcome.unwrap()).collect())
    }

    pub(crate) async fn get(&self, name: &str) -> BroadcastResult<pb::Channel> {
        let request = pb::GetChannelRequest { name: name.to_owned() };
        Ok(result(self.service.clone().get_channel(request).await)?.channel.unwrap())
    }

    pub(crate) async fn try_subscribe(&self, channels: Vec<pb::ChannelStart>) -> BroadcastResult<FrameStream> {
        let request = pb::SubscribeRequest { channels };
        Ok(FrameStream::new(result(self.service.clone().subscribe(request).await)?))
    }

    /// Subscribes to one channel.
    pub(crate) async fn subscribe(&self, start: pb::ChannelStart) -> FrameStream {
        self.try_subscribe(vec![start]).await.unwrap()
    }

    /// Subscribes, and retries until there is a stream.
    pub(crate) async fn subscribe_with_retry(&self, channels: Vec<pb::ChannelStart>) -> FrameStream {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_subscribe(channels.clone()).await {
                Ok(stream) => return stream,
                Err(failure) => {
                    assert_eq!(failure.code, Code::Unavailable, "{failure}");
                    assert!(Instant::now() < until, "no stream within {PATIENCE:?}: {failure}");
                    tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
                }
            }
        }
    }

    /// Subscribes from the latest message on, and waits for `CaughtUp`.
    pub(crate) async fn listen(&self, channel: &str) -> FrameStream {
        let mut stream = self.subscribe(latest(channel)).await;
        stream.caught_up().await;
        stream
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

/// Makes a request to publish a text.
pub(crate) fn text_message(channel: &str, text: &str) -> pb::PublishRequest {
    pb::PublishRequest { channel: channel.to_owned(), data: text.to_owned().into(), ..Default::default() }
}

/// Makes a request to publish a text with a request id.
pub(crate) fn text_with_id(channel: &str, text: &str, request_id: &str) -> pb::PublishRequest {
    pb::PublishRequest { request_id: request_id.to_owned(), ..text_message(channel, text) }
}

/// Starts at the latest message.
pub(crate) fn latest(channel: &str) -> pb::ChannelStart {
    pb::ChannelStart { channel: channel.to_owned(), start: None }
}

/// Starts behind a position.
pub(crate) fn after(channel: &str, epoch: &str, offset: i64) -> pb::ChannelStart {
    let position = pb::Position { epoch: epoch.to_owned(), offset };
    pb::ChannelStart { start: Some(Start::Position(position)), ..latest(channel) }
}

/// Starts at the first message of a channel.
pub(crate) fn from_beginning(channel: &str) -> pb::ChannelStart {
    after(channel, "", 0)
}

/// Starts before the last `count` messages.
pub(crate) fn last(channel: &str, count: i32) -> pb::ChannelStart {
    pb::ChannelStart { start: Some(Start::Last(count)), ..latest(channel) }
}

/// Returns the epoch and offset of a published item.
pub(crate) fn published(outcome: &Outcome) -> (String, i64) {
    match outcome {
        Outcome::Published(published) => (published.epoch.clone(), published.offset),
        Outcome::Failure(failure) => panic!("refused: {failure:?}"),
    }
}

fn result<T>(response: Result<Response<T>, Status>) -> BroadcastResult<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}
