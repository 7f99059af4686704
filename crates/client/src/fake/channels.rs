//! A broadcast service whose streams follow scripts.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_proto::broadcast::broadcast_service_server::{BroadcastService, BroadcastServiceServer};
use tidings_proto::broadcast::channel_start::Start;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{self as pb, CaughtUp, Gap, Goodbye, Heartbeat, Message, Messages, Position, Reset};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::FakeInstance;

/// One step of a stream's script.
#[derive(Clone, Debug)]
pub(crate) enum StreamStep {
    /// Sends a frame.
    Send(Frame),
    /// Sends nothing for this time.
    Pause(Duration),
    /// Ends the stream with an error.
    Fail(Status),
    /// As the first step, refuses the stream.
    Refuse(Status),
    /// As the first step, accepts the stream after this time.
    AcceptAfter(Duration),
    /// Ends the stream without an error.
    End,
}

/// A stream request as an instance received it.
#[derive(Clone, Debug)]
pub(crate) struct StreamRequest {
    /// Name of the instance.
    pub(crate) instance: &'static str,
    /// Body of the request.
    pub(crate) request: pb::SubscribeRequest,
}

/// State shared by all instances: the scripts of the next streams, and the requests so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeChannels {
    state: Arc<Mutex<StreamScripts>>,
}

#[derive(Debug, Default)]
struct StreamScripts {
    scripts: VecDeque<Vec<StreamStep>>,
    requests: Vec<StreamRequest>,
}

/// A message of channel `c` and epoch `e`.
pub(crate) fn message(offset: i64) -> Message {
    Message { channel: "c".into(), epoch: "e".into(), offset, ..Default::default() }
}

pub(crate) fn messages(offsets: impl IntoIterator<Item = i64>) -> StreamStep {
    StreamStep::Send(Frame::Messages(Messages { messages: offsets.into_iter().map(message).collect() }))
}

pub(crate) fn caught_up(head: i64) -> CaughtUp {
    CaughtUp { channel: "c".into(), epoch: "e".into(), head }
}

pub(crate) fn gap(first_offset: i64, last_offset: i64, reason: pb::gap::Reason) -> Gap {
    Gap { channel: "c".into(), epoch: "e".into(), first_offset, last_offset, reason: reason.into() }
}

pub(crate) fn reset(epoch: &str, head: i64) -> Reset {
    Reset { channel: "c".into(), epoch: epoch.into(), head }
}

pub(crate) fn heartbeat() -> StreamStep {
    StreamStep::Send(Frame::Heartbeat(Heartbeat::default()))
}

pub(crate) fn goodbye(retry_after: Duration) -> StreamStep {
    StreamStep::Send(Frame::Goodbye(Goodbye { retry_after: retry_after.try_into().ok(), ..Goodbye::default() }))
}

/// The end of a stream whose connection has reached its age.
pub(crate) fn connection_goodbye() -> StreamStep {
    let reason = pb::goodbye::Reason::ConnectionAge.into();
    StreamStep::Send(Frame::Goodbye(Goodbye { retry_after: Some(prost_types::Duration::default()), reason }))
}

impl StreamRequest {
    /// Returns the start of its only channel.
    pub(crate) fn start(&self) -> Option<Start> {
        assert_eq!(self.request.channels.len(), 1);
        self.request.channels[0].start.clone()
    }

    /// Returns the offset of epoch `e` after which its only channel starts.
    pub(crate) fn after(&self) -> i64 {
        match self.start() {
            Some(Start::Position(Position { epoch, offset })) if epoch == "e" => offset,
            other => panic!("{other:?}"),
        }
    }
}

impl FakeChannels {
    /// Runs `scripts` for the streams of all instances in turn. Later streams are silent.
    pub(crate) fn new(scripts: impl IntoIterator<Item = Vec<StreamStep>>) -> Self {
        let channels = Self::default();
        channels.state().scripts = scripts.into_iter().collect();
        channels
    }

    /// Starts an instance.
    pub(crate) fn instance(&self, name: &'static str) -> FakeInstance {
        let service = ScriptedBroadcast { name, channels: self.clone() };
        FakeInstance::start(name, Routes::new(BroadcastServiceServer::new(service)))
    }

    /// Returns all stream requests so far.
    pub(crate) fn requests(&self) -> Vec<StreamRequest> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, StreamScripts> {
        self.state.lock().unwrap()
    }
}

struct ScriptedBroadcast {
    name: &'static str,
    channels: FakeChannels,
}

impl fmt::Debug for ScriptedBroadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[tonic::async_trait]
impl BroadcastService for ScriptedBroadcast {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let script = {
            let mut state = self.channels.state();
            state.requests.push(StreamRequest { instance: self.name, request: request.into_inner() });
            state.scripts.pop_front().unwrap_or_else(|| vec![StreamStep::Pause(Duration::MAX)])
        };
        match script.first() {
            Some(StreamStep::Refuse(status)) => return Err(status.clone()),
            Some(StreamStep::AcceptAfter(time)) => sleep(*time).await,
            _ => {}
        }
        let (sender, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            for step in script {
                let sent = match step {
                    StreamStep::Send(frame) => sender.send(Ok(pb::SubscribeResponse { frame: Some(frame) })).await,
                    StreamStep::Fail(status) | StreamStep::Refuse(status) => sender.send(Err(status)).await,
                    StreamStep::AcceptAfter(_) => Ok(()),
                    StreamStep::End => return,
                    StreamStep::Pause(time) => {
                        tokio::select! {
                            () = sleep(time) => Ok(()),
                            () = sender.closed() => return,
                        }
                    }
                };
                if sent.is_err() {
                    return;
                }
            }
            sender.closed().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).fuse())))
    }

    async fn publish(&self, _: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }

    async fn batch_publish(
        &self,
        _: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }

    async fn get_channel(&self, _: Request<pb::GetChannelRequest>) -> Result<Response<pb::GetChannelResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }
}
