//! A broadcast service in memory, which notes what is published, and can be told to fail.

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

/// How it fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Every call is UNAVAILABLE, and not done.
    pub(crate) away: bool,
    /// So many calls are done, and answered UNAVAILABLE.
    pub(crate) lost_answers: usize,
    /// Calls with one of these (channel, request id) are refused, and nothing of them is done.
    pub(crate) poison: BTreeSet<(String, String)>,
    /// Such a call is INTERNAL, not INVALID_ARGUMENT.
    pub(crate) poison_breaks: bool,
    /// Keys are not remembered, as if 10 minutes had passed.
    pub(crate) forgetful: bool,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    channels: BTreeMap<String, Vec<pb::PublishRequest>>,
}

/// The broadcast service of one test. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Broadcaster {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Broadcaster {
    /// Serves for as long as the runtime of the test.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broadcaster = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let service = BroadcastServiceServer::new(broadcaster.clone()).max_decoding_message_size(4 << 20);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        broadcaster
    }

    /// Lets a history service publish here.
    pub(crate) fn hears(&self, config: &mut Config) {
        config.relay.broadcast_addr = Some(self.address.to_string().parse().unwrap());
    }

    /// Changes how it fails.
    pub(crate) fn fails(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// What was published to the channel of a conversation, in order.
    pub(crate) fn published(&self, conversation: &str) -> Vec<Message> {
        let state = self.state();
        let channel = state.channels.get(&format!("conversation/{conversation}"));
        let decode = |request: &pb::PublishRequest| {
            assert_eq!(request.content_type, "application/x-protobuf;type=tidings.history.v1.Message");
            Message::decode(request.data.clone()).unwrap()
        };
        channel.into_iter().flatten().map(decode).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn publish(&mut self, request: pb::PublishRequest) -> pb::PublishResponse {
        let channel = self.channels.entry(request.channel.clone()).or_default();
        let known = channel.iter().position(|known| known.request_id == request.request_id);
        let known = known.filter(|_| !self.faults.forgetful);
        let place = known.unwrap_or_else(|| {
            channel.push(request);
            channel.len() - 1
        });
        pb::PublishResponse { epoch: "e".to_owned(), offset: place as i64 + 1, deduplicated: known.is_some() }
    }
}

#[tonic::async_trait]
impl BroadcastService for Broadcaster {
    async fn batch_publish(
        &self,
        request: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        let mut state = self.state();
        let requests = request.into_inner().requests;
        assert!((1..=500).contains(&requests.len()));
        if state.faults.away {
            return Err(Status::unavailable("away"));
        }
        let poisonous = |request: &pb::PublishRequest| {
            state.faults.poison.contains(&(request.channel.clone(), request.request_id.clone()))
        };
        if requests.iter().any(poisonous) {
            let breaks = state.faults.poison_breaks;
            let code = if breaks { Code::Internal } else { Code::InvalidArgument };
            let reason = if breaks { "INTERNAL" } else { "INVALID_FIELDS" };
            return Err(Reply::new(code, "broadcast.tidings", reason, "poison").into_status());
        }
        let published = requests.into_iter().map(|request| Outcome::Published(state.publish(request)));
        let results = published.map(|outcome| pb::BatchPublishResult { outcome: Some(outcome) }).collect();
        if state.faults.lost_answers > 0 {
            state.faults.lost_answers -= 1;
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(pb::BatchPublishResponse { results }))
    }

    async fn publish(&self, _: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        Err(Status::unimplemented("the relay publishes batches"))
    }

    type SubscribeStream = Empty<Result<pb::SubscribeResponse, Status>>;

    async fn subscribe(&self, _: Request<pb::SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("nobody listens here"))
    }

    async fn get_channel(&self, _: Request<pb::GetChannelRequest>) -> Result<Response<pb::GetChannelResponse>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }
}
