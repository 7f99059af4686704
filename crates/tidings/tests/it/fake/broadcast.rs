//! The in-memory broadcast service.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, stream};
use tidings_proto::broadcast::broadcast_service_server::BroadcastService;
use tidings_proto::broadcast::channel_start::Start;
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{self as pb, CaughtUp, Gap, Message, Messages, Position, Reset};
use tonic::{Request, Response, Status};

use super::{FakeHandler, Store};

/// The interval at which a subscription polls for messages.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) epoch: String,
    pub(crate) messages: Vec<Message>,
    /// Number of messages trimmed from the start.
    pub(crate) trimmed: usize,
    request_ids: Vec<String>,
}

impl Channel {
    /// A channel without messages.
    pub(crate) fn new(epoch: &str) -> Self {
        Self { epoch: epoch.to_owned(), messages: Vec::new(), trimmed: 0, request_ids: Vec::new() }
    }

    fn head(&self) -> i64 {
        offset(self.messages.len())
    }
}

fn offset(index: usize) -> i64 {
    i64::try_from(index).unwrap()
}

impl Store {
    fn channel(&mut self, name: &str) -> &mut Channel {
        self.channels.entry(name.to_owned()).or_insert_with(|| Channel::new("e1"))
    }

    pub(crate) fn publish(&mut self, request: pb::PublishRequest) -> pb::PublishResponse {
        let channel = self.channel(&request.channel);
        let known = channel.request_ids.iter().position(|id| *id == request.request_id);
        if let Some(index) = known.filter(|_| !request.request_id.is_empty()) {
            return pb::PublishResponse { epoch: channel.epoch.clone(), offset: offset(index + 1), deduplicated: true };
        }
        channel.request_ids.push(request.request_id);
        let message = Message {
            channel: request.channel,
            epoch: channel.epoch.clone(),
            offset: channel.head() + 1,
            publish_time: Some(SystemTime::now().into()),
            data: request.data,
            content_type: request.content_type,
            attributes: request.attributes,
            trace_parent: request.trace_parent,
        };
        let response =
            pb::PublishResponse { epoch: message.epoch.clone(), offset: message.offset, deduplicated: false };
        channel.messages.push(message);
        response
    }
}

/// The position of a subscription in a channel, and the frames to send next.
struct SubscriberState {
    channel: String,
    epoch: String,
    offset: i64,
    frames: Vec<Frame>,
}

impl SubscriberState {
    fn new(start: pb::ChannelStart, store: &mut Store) -> Self {
        let channel = store.channel(&start.channel);
        let (epoch, head) = (channel.epoch.clone(), channel.head());
        let (offset, mut frames) = match start.start {
            Some(Start::Position(Position { epoch: known, offset })) if known.is_empty() || known == epoch => {
                (offset, Vec::new())
            }
            Some(Start::Position(_)) => {
                (0, vec![Frame::Reset(Reset { channel: start.channel.clone(), epoch: epoch.clone(), head })])
            }
            Some(Start::Last(count)) => ((head - i64::from(count)).max(offset(channel.trimmed)), Vec::new()),
            None => (head, Vec::new()),
        };
        let mut state = Self { channel: start.channel.clone(), epoch: epoch.clone(), offset, frames: Vec::new() };
        frames.extend(state.next_frames(channel));
        frames.push(Frame::CaughtUp(CaughtUp { channel: start.channel, epoch, head }));
        state.frames = frames;
        state
    }

    /// Returns the frames from the subscription's position to the head, and advances it.
    fn next_frames(&mut self, channel: &Channel) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.epoch != channel.epoch {
            (self.epoch, self.offset) = (channel.epoch.clone(), 0);
            let (channel, epoch, head) = (self.channel.clone(), self.epoch.clone(), channel.head());
            frames.push(Frame::Reset(Reset { channel, epoch, head }));
        }
        let trimmed = offset(channel.trimmed);
        if self.offset < trimmed {
            let (channel, epoch, reason) = (self.channel.clone(), self.epoch.clone(), Reason::Trimmed.into());
            frames.push(Frame::Gap(Gap {
                channel,
                epoch,
                first_offset: self.offset + 1,
                last_offset: trimmed,
                reason,
            }));
            self.offset = trimmed;
        }
        let messages = channel.messages[usize::try_from(self.offset).unwrap()..].to_vec();
        if !messages.is_empty() {
            self.offset = channel.head();
            frames.push(Frame::Messages(Messages { messages }));
        }
        frames
    }
}

#[tonic::async_trait]
impl BroadcastService for FakeHandler {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.enter().await?;
        let handler = self.clone();
        let states: Vec<_> = {
            let mut store = self.store();
            store.subscriptions += 1;
            request.into_inner().channels.into_iter().map(|start| SubscriberState::new(start, &mut store)).collect()
        };
        let frames = stream::unfold((handler, states), async |(handler, mut states)| {
            loop {
                for state in &mut states {
                    if state.frames.is_empty() {
                        let mut store = handler.store();
                        let name = state.channel.clone();
                        state.frames = state.next_frames(store.channel(&name));
                    }
                    if !state.frames.is_empty() {
                        let frame = Some(state.frames.remove(0));
                        return Some((Ok(pb::SubscribeResponse { frame }), (handler, states)));
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        self.enter().await?;
        Ok(Response::new(self.store().publish(request.into_inner())))
    }

    async fn batch_publish(
        &self,
        _: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn get_channel(&self, _: Request<pb::GetChannelRequest>) -> Result<Response<pb::GetChannelResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }
}
