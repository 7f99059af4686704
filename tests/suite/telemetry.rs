//! Telemetry of real processes: spans, log lines, metrics.

mod collector;
mod metrics;

use std::time::Duration;

use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{self, ChannelStart, SubscribeRequest, SubscribeResponse};
use tidings_proto::history::body::Content;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::history::{AppendMessageRequest, Body, Conversation, CreateConversationRequest, conversation};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::service::{MAX_WAIT, TestService};
use collector::{Collector, Span};

/// Trace id of the caller.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Span id of the caller.
const CALLER: &str = "b7ad6b7169203331";

/// Returns the caller's `traceparent` header.
fn header() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

/// A history service that relays to a broadcast service.
struct TracedServices {
    history: TestService,
    broadcast: TestService,
}

impl TracedServices {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let broadcast = TestService::start_with_env("broadcast", &[], variables).await;
        let address = broadcast.address.to_string();
        let variables = [variables, &[("TIDINGS_BROADCAST_ADDR", &address)]].concat();
        let history = TestService::start_with_env("history", &[], &variables).await;
        Self { history, broadcast }
    }

    /// Creates a conversation and subscribes to it.
    async fn open(&self, name: &str) -> Streaming<SubscribeResponse> {
        let mut conversations = ConversationServiceClient::new(self.history.channel().await);
        let kind = conversation::Kind::Open.into();
        let conversation = Conversation { id: name.to_owned(), kind, ..Conversation::default() };
        let channel = format!("conversation/{name}");
        let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
        conversations.create_conversation(request).await.unwrap();
        let request = SubscribeRequest { channels: vec![ChannelStart { channel, start: None }] };
        let mut subscriber = BroadcastServiceClient::new(self.broadcast.channel().await);
        subscriber.subscribe(request).await.unwrap().into_inner()
    }

    async fn histories(&self) -> HistoryServiceClient<Channel> {
        HistoryServiceClient::new(self.history.channel().await)
    }
}

fn append(conversation: &str, text: &str) -> Request<AppendMessageRequest> {
    let mut request = Request::new(AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: "ada".to_owned(),
        client_message_id: "m-1".to_owned(),
        body: Some(Body { content: Some(Content::Text(text.to_owned())) }),
        ..AppendMessageRequest::default()
    });
    request.metadata_mut().insert("traceparent", header().parse().unwrap());
    request
}

/// Waits for the first message of a subscription.
async fn first_message(frames: &mut Streaming<SubscribeResponse>) -> broadcast::Message {
    let message = async {
        loop {
            if let Some(Frame::Messages(messages)) = frames.message().await.unwrap().unwrap().frame {
                break messages.messages.into_iter().next().unwrap();
            }
        }
    };
    timeout(MAX_WAIT, message).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_append_through_the_relay_to_subscribers() {
    let collector = Collector::start();
    let services = TracedServices::start(&[("TIDINGS_OTLP_ENDPOINT", &collector.url)]).await;
    let mut frames = services.open("lobby").await;

    services.histories().await.append_message(append("lobby", "hello")).await.unwrap();
    let message = first_message(&mut frames).await;

    let find = async |name: &str, parent: &str| -> Span { collector.find(TRACE, name, parent).await };
    let appended = find("tidings.history.v1.HistoryService/AppendMessage", CALLER).await;
    let published = find("publish", &appended.id).await;
    let received = find("tidings.broadcast.v1.BroadcastService/BatchPublish", &published.id).await;
    let delivered = find("deliver", &published.id).await;
    assert_eq!([&appended.service, &published.service], ["tidings-history"; 2]);
    assert_eq!([&received.service, &delivered.service], ["tidings-broadcast"; 2]);
    assert_eq!(
        message.trace_parent,
        format!("00-{TRACE}-{}-01", published.id),
        "subscribers continue the trace of the relay"
    );
}

/// The log has trace and request ids, but neither tokens nor message bodies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_pass_through_services_without_a_collector() {
    let services = TracedServices::start(&[("TIDINGS_LOG", "info,tidings_server=debug")]).await;
    let mut frames = services.open("lobby").await;

    let mut request = append("lobby", "a-payload-that-is-not-logged");
    request.metadata_mut().insert("x-request-id", "call-of-the-test".parse().unwrap());
    request.metadata_mut().insert("authorization", "Bearer a-token-that-is-not-logged".parse().unwrap());
    services.histories().await.append_message(request).await.unwrap();
    let message = first_message(&mut frames).await;

    assert_eq!(message.trace_parent, header());
    let appended = find_call_ended(&services.history, "tidings.history.v1.HistoryService/AppendMessage").await;
    assert_eq!(appended["code"], "OK", "{appended}");
    assert_eq!(appended["span"]["request_id"], "call-of-the-test", "{appended}");
    assert_eq!(appended["span"]["trace_id"], TRACE, "{appended}");
    assert!(appended["duration"].as_str().is_some_and(|duration| duration.ends_with('s')), "{appended}");
    let published = find_call_ended(&services.broadcast, "tidings.broadcast.v1.BroadcastService/BatchPublish").await;
    assert_eq!(published["span"]["trace_id"], TRACE, "{published}");
    for log in [services.history.log(), services.broadcast.log()] {
        assert!(!log.contains("that-is-not-logged"), "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    }
}

/// Waits for the log line `call ended` of a method.
async fn find_call_ended(service: &TestService, method: &str) -> serde_json::Value {
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        let log = service.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(line) = lines.find(|line| line["message"] == "call ended" && line["span"]["method"] == method) {
            return line;
        }
        assert!(Instant::now() < deadline, "{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_collector_delays_neither_calls_nor_shutdown() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // accepts and never replies
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut services = TracedServices::start(&[("TIDINGS_OTLP_ENDPOINT", &url), ("TIDINGS_LAME_DUCK", "0s")]).await;
    let mut frames = services.open("lobby").await;

    services.histories().await.append_message(append("lobby", "hello")).await.unwrap();
    first_message(&mut frames).await;
    drop(frames);
    services.history.terminate();

    let status = services.history.wait_for_exit(MAX_WAIT).await;
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", services.history.log());
}
