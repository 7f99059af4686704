//! A broadcast service of whose streams each does what the test wants.

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

use super::Instance;

/// What a stream does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// It brings a frame.
    Send(Frame),
    /// It does nothing for so long.
    Pause(Duration),
    /// It fails.
    Fail(Status),
    /// It is not accepted.
    Refuse(Status),
    /// It is accepted so much later.
    Late(Duration),
    /// It ends.
    End,
}

/// A stream as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The name of the instance.
    pub(crate) instance: &'static str,
    /// What was asked.
    pub(crate) request: pb::SubscribeRequest,
}

/// What all instances have in common: the streams that come next, and those there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    scripts: VecDeque<Vec<Step>>,
    asked: Vec<Asked>,
}

/// A message of channel `c` and epoch `e`.
pub(crate) fn message(offset: i64) -> Message {
    Message { channel: "c".into(), epoch: "e".into(), offset, ..Default::default() }
}

pub(crate) fn messages(offsets: impl IntoIterator<Item = i64>) -> Step {
    Step::Send(Frame::Messages(Messages { messages: offsets.into_iter().map(message).collect() }))
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

pub(crate) fn heartbeat() -> Step {
    Step::Send(Frame::Heartbeat(Heartbeat::default()))
}

pub(crate) fn goodbye(retry_after: Duration) -> Step {
    Step::Send(Frame::Goodbye(Goodbye { retry_after: retry_after.try_into().ok() }))
}

impl Asked {
    /// Where its only channel was to begin.
    pub(crate) fn start(&self) -> Option<Start> {
        assert_eq!(self.request.channels.len(), 1);
        self.request.channels[0].start.clone()
    }

    /// The position of epoch `e` where its only channel was to begin.
    pub(crate) fn after(&self) -> i64 {
        match self.start() {
            Some(Start::Position(Position { epoch, offset })) if epoch == "e" => offset,
            other => panic!("{other:?}"),
        }
    }
}

impl Channels {
    /// Streams that do this in turn, wherever they are opened; those that come later are accepted and say nothing.
    pub(crate) fn new(scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        let channels = Self::default();
        channels.state().scripts = scripts.into_iter().collect();
        channels
    }

    /// Starts an instance.
    pub(crate) fn instance(&self, name: &'static str) -> Instance {
        let served = Served { name, channels: self.clone() };
        Instance::start(name, Routes::new(BroadcastServiceServer::new(served)))
    }

    /// The streams there were.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct Served {
    name: &'static str,
    channels: Channels,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[tonic::async_trait]
impl BroadcastService for Served {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let script = {
            let mut state = self.channels.state();
            state.asked.push(Asked { instance: self.name, request: request.into_inner() });
            state.scripts.pop_front().unwrap_or_else(|| vec![Step::Pause(Duration::MAX)])
        };
        match script.first() {
            Some(Step::Refuse(status)) => return Err(status.clone()),
            Some(Step::Late(time)) => sleep(*time).await,
            _ => {}
        }
        let (sender, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            for step in script {
                let sent = match step {
                    Step::Send(frame) => sender.send(Ok(pb::SubscribeResponse { frame: Some(frame) })).await,
                    Step::Fail(status) | Step::Refuse(status) => sender.send(Err(status)).await,
                    Step::Late(_) => Ok(()),
                    Step::End => return,
                    Step::Pause(time) => {
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
        Err(Status::unimplemented("not needed here"))
    }

    async fn batch_publish(
        &self,
        _: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn get_channel(&self, _: Request<pb::GetChannelRequest>) -> Result<Response<pb::GetChannelResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}
