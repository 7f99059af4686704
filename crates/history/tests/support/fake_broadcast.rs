//! An in-memory broadcast service that records published messages and fails on request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use prost::Message as _;
use tidings_history::Config;
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::batch_publish_result::Outcome;
use tidings_proto::broadcast::broadcast_service_server::{BroadcastService, BroadcastServiceServer};
use tidings_proto::history::Message;
use tidings_status::Reply;
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

/// Faults that the service injects.
#[derive(Clone, Debug, Default)]
pub(crate) struct BroadcastFaults {
    /// Every call fails with UNAVAILABLE and publishes nothing.
    pub(crate) unavailable: bool,
    /// Number of calls that publish their messages and still fail with UNAVAILABLE.
    pub(crate) lost_responses: usize,
    /// A call with one of these (channel, seq and version) is refused as a whole.
    pub(crate) refused: BTreeSet<(String, String)>,
    /// Request ids that another publisher has used before: this many, each the next one.
    pub(crate) taken: usize,
    /// A refused call fails with INTERNAL instead of INVALID_ARGUMENT.
    pub(crate) refuse_as_internal: bool,
    /// Request ids are not remembered, as if 10 minutes had passed.
    pub(crate) forgetful: bool,
}

#[derive(Debug, Default)]
struct FakeBroadcastState {
    faults: BroadcastFaults,
    channels: BTreeMap<String, Vec<pb::PublishRequest>>,
    taken_ids: BTreeSet<String>,
}

/// The broadcast service of one test. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct FakeBroadcast {
    address: SocketAddr,
    state: Arc<Mutex<FakeBroadcastState>>,
}

impl FakeBroadcast {
    /// Starts a service that lives as long as the runtime of the test.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broadcast = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let service = BroadcastServiceServer::new(broadcast.clone()).max_decoding_message_size(4 << 20);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        broadcast
    }

    /// Makes a history service publish to this one.
    pub(crate) fn attach(&self, config: &mut Config) {
        config.relay.broadcast_addr = Some(self.address.to_string().parse().unwrap());
    }

    /// Changes the injected faults.
    pub(crate) fn set_faults(&self, change: impl FnOnce(&mut BroadcastFaults)) {
        change(&mut self.state().faults);
    }

    /// Returns the messages published to the channel of a conversation, in order.
    pub(crate) fn published(&self, conversation: &str) -> Vec<Message> {
        let state = self.state();
        let channel = state.channels.get(&format!("conversation/{conversation}"));
        let decode = |request: &pb::PublishRequest| {
            assert_eq!(request.content_type, "application/x-protobuf;type=tidings.history.v1.Message");
            Message::decode(request.data.clone()).unwrap()
        };
        channel.into_iter().flatten().map(decode).collect()
    }

    fn state(&self) -> MutexGuard<'_, FakeBroadcastState> {
        self.state.lock().unwrap()
    }
}

impl FakeBroadcastState {
    /// Publishes a message, unless its request id is taken.
    fn answer(&mut self, request: pb::PublishRequest) -> Outcome {
        if self.faults.taken > 0 {
            self.faults.taken -= 1;
            self.taken_ids.insert(request.request_id.clone());
        }
        if self.taken_ids.contains(&request.request_id) {
            let (reason, message) = (pb::ErrorReason::RequestIdReused.into(), "used before".to_owned());
            return Outcome::Failure(pb::PublishFailure { reason, message, ..Default::default() });
        }
        Outcome::Published(self.publish(request))
    }

    fn publish(&mut self, request: pb::PublishRequest) -> pb::PublishResponse {
        let channel = self.channels.entry(request.channel.clone()).or_default();
        let existing = channel.iter().position(|published| published.request_id == request.request_id);
        let existing = existing.filter(|_| !self.faults.forgetful);
        let index = existing.unwrap_or_else(|| {
            channel.push(request);
            channel.len() - 1
        });
        pb::PublishResponse { epoch: "e".to_owned(), offset: index as i64 + 1, deduplicated: existing.is_some() }
    }
}

#[tonic::async_trait]
impl BroadcastService for FakeBroadcast {
    async fn batch_publish(
        &self,
        request: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        let mut state = self.state();
        let requests = request.into_inner().requests;
        assert!((1..=500).contains(&requests.len()));
        if state.faults.unavailable {
            return Err(Status::unavailable("injected outage"));
        }
        let is_refused = |request: &pb::PublishRequest| {
            let (_key, version) = request.request_id.split_once('.').unwrap();
            state.faults.refused.contains(&(request.channel.clone(), version.to_owned()))
        };
        if requests.iter().any(is_refused) {
            let internal = state.faults.refuse_as_internal;
            let code = if internal { Code::Internal } else { Code::InvalidArgument };
            let reason = if internal { "INTERNAL" } else { "INVALID_FIELDS" };
            return Err(Reply::new(code, "broadcast.tidings", reason, "injected refusal").into_status());
        }
        let results =
            requests.into_iter().map(|request| pb::BatchPublishResult { outcome: Some(state.answer(request)) });
        let results = results.collect();
        if state.faults.lost_responses > 0 {
            state.faults.lost_responses -= 1;
            return Err(Status::unavailable("injected loss of the response"));
        }
        Ok(Response::new(pb::BatchPublishResponse { results }))
    }

    async fn publish(&self, _: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        Err(Status::unimplemented("the relay publishes batches"))
    }

    type SubscribeStream = Empty<Result<pb::SubscribeResponse, Status>>;

    async fn subscribe(&self, _: Request<pb::SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("not supported by the fake"))
    }

    async fn get_channel(&self, _: Request<pb::GetChannelRequest>) -> Result<Response<pb::GetChannelResponse>, Status> {
        Err(Status::unimplemented("not supported by the fake"))
    }
}
