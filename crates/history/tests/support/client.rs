//! A client with one method per call, and builders of the requests that tests send most.

use std::net::SocketAddr;

use tidings_devstack::testing::PATIENCE;
use tidings_proto::history as pb;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::assert_contiguous;

pub(crate) use tidings_proto::history::batch_append_messages_result::Outcome;
pub(crate) use tidings_proto::history::list_messages_request::Anchor;
pub(crate) use tidings_proto::history::read_info::Source;

/// The response of a call, or its failure.
pub(crate) type CallResult<T> = Result<T, Box<Failure>>;

/// More than the response to the largest batch, in bytes.
const RESPONSE_MAX: usize = 8 * 1024 * 1024;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HistoryClient {
    history: HistoryServiceClient<Channel>,
    conversations: ConversationServiceClient<Channel>,
}

impl HistoryClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self {
            history: HistoryServiceClient::new(channel.clone()).max_decoding_message_size(RESPONSE_MAX),
            conversations: ConversationServiceClient::new(channel),
        }
    }

    /// Creates an open conversation.
    pub(crate) async fn create(&self, id: &str) -> pb::Conversation {
        self.create_as(open(id)).await.unwrap().conversation.unwrap()
    }

    pub(crate) async fn create_as(
        &self,
        request: pb::CreateConversationRequest,
    ) -> CallResult<pb::CreateConversationResponse> {
        call_result(self.conversations.clone().create_conversation(request).await)
    }

    pub(crate) async fn conversation(&self, id: &str) -> CallResult<pb::Conversation> {
        let request = pb::GetConversationRequest { id: id.to_owned() };
        let got = call_result(self.conversations.clone().get_conversation(request).await)?;
        Ok(got.conversation.unwrap())
    }

    pub(crate) async fn append(&self, request: pb::AppendMessageRequest) -> CallResult<pb::AppendMessageResponse> {
        call_result(self.history.clone().append_message(request).await)
    }

    /// Appends a text message whose text equals its key.
    pub(crate) async fn say(&self, conversation: &str, sender: &str, key: &str) -> pb::Message {
        let appended = self.append(text(conversation, sender, key, key)).await.unwrap();
        appended.message.unwrap()
    }

    /// Appends a message, and retries with the same key until the call succeeds.
    pub(crate) async fn append_with_retry(&self, request: pb::AppendMessageRequest) -> pb::AppendMessageResponse {
        self.append_until_ok(request, RetryWindow::begin()).await
    }

    /// Appends a message, and retries with the same key, also after a missed deadline: the machine
    /// has more to do than it can.
    pub(crate) async fn append_on_busy_machine(&self, request: pb::AppendMessageRequest) -> pb::AppendMessageResponse {
        self.append_until_ok(request, RetryWindow { retries_deadlines: true, ..RetryWindow::begin() }).await
    }

    async fn append_until_ok(
        &self,
        request: pb::AppendMessageRequest,
        retries: RetryWindow,
    ) -> pb::AppendMessageResponse {
        loop {
            match self.append(request.clone()).await {
                Ok(appended) => return appended,
                Err(failure) => retries.after(&failure).await,
            }
        }
    }

    pub(crate) async fn batch(&self, requests: Vec<pb::AppendMessageRequest>) -> CallResult<Vec<Outcome>> {
        let request = pb::BatchAppendMessagesRequest { requests };
        let done = call_result(self.history.clone().batch_append_messages(request).await)?;
        Ok(done.results.into_iter().map(|result| result.outcome.unwrap()).collect())
    }

    /// Creates a conversation with `count` short text messages.
    pub(crate) async fn fill(&self, conversation: &str, count: usize) {
        self.create(conversation).await;
        let keys: Vec<_> = (1..=count).map(|number| format!("fill-{number}")).collect();
        for keys in keys.chunks(100) {
            let requests = keys.iter().map(|key| text(conversation, "ada", key, key)).collect();
            self.batch(requests).await.unwrap();
        }
    }

    pub(crate) async fn message(&self, conversation: &str, seq: i64) -> CallResult<pb::Message> {
        let request = pb::GetMessageRequest { conversation_id: conversation.to_owned(), seq };
        let got = call_result(self.history.clone().get_message(request).await)?;
        assert_eq!(source(got.read_info), Source::Postgres);
        Ok(got.message.unwrap())
    }

    /// Reads a page and checks that it has no gap.
    pub(crate) async fn list(&self, request: pb::ListMessagesRequest) -> CallResult<pb::ListMessagesResponse> {
        let page = call_result(self.history.clone().list_messages(request).await)?;
        assert_contiguous(&page);
        Ok(page)
    }

    /// Reads a page, and retries until the call succeeds.
    pub(crate) async fn list_with_retry(&self, request: pb::ListMessagesRequest) -> pb::ListMessagesResponse {
        let retries = RetryWindow::begin();
        loop {
            match self.list(request.clone()).await {
                Ok(page) => return page,
                Err(failure) => retries.after(&failure).await,
            }
        }
    }

    /// Reads the newest page of at most `size` messages.
    pub(crate) async fn newest(&self, conversation: &str, size: i32) -> pb::ListMessagesResponse {
        self.list(newest(conversation, size)).await.unwrap()
    }

    pub(crate) async fn authored(
        &self,
        request: pb::ListUserMessagesRequest,
    ) -> CallResult<pb::ListUserMessagesResponse> {
        call_result(self.history.clone().list_user_messages(request).await)
    }
}

/// Builds a request to create an open conversation.
pub(crate) fn open(id: &str) -> pb::CreateConversationRequest {
    let conversation =
        pb::Conversation { id: id.to_owned(), kind: pb::conversation::Kind::Open.into(), ..Default::default() };
    pb::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() }
}

/// Builds a request to append a text message.
pub(crate) fn text(conversation: &str, sender: &str, key: &str, text: &str) -> pb::AppendMessageRequest {
    pb::AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: sender.to_owned(),
        client_message_id: key.to_owned(),
        body: Some(pb::Body { content: Some(pb::body::Content::Text(text.to_owned())) }),
        ..Default::default()
    }
}

/// Builds a binary body.
pub(crate) fn binary(data: Vec<u8>, content_type: &str) -> pb::Body {
    let binary = pb::Binary { data: data.into(), content_type: content_type.to_owned() };
    pb::Body { content: Some(pb::body::Content::Binary(binary)) }
}

/// Builds a request for the newest page.
pub(crate) fn newest(conversation: &str, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { conversation_id: conversation.to_owned(), page_size: size, ..Default::default() }
}

/// Builds a request for a page at an anchor.
pub(crate) fn at(conversation: &str, anchor: Anchor, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { anchor: Some(anchor), ..newest(conversation, size) }
}

/// Builds a request for the newest page with a `min_seq`.
pub(crate) fn newest_with_min_seq(conversation: &str, min_seq: i64, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { min_seq, ..newest(conversation, size) }
}

/// Returns the layer that answered.
pub(crate) fn source(read_info: Option<pb::ReadInfo>) -> Source {
    read_info.unwrap().source()
}

/// Returns the message of an appended item, and whether it was deduplicated.
pub(crate) fn appended(outcome: &Outcome) -> (&pb::Message, bool) {
    match outcome {
        Outcome::Appended(appended) => (appended.message.as_ref().unwrap(), appended.deduplicated),
        Outcome::Failure(failure) => panic!("refused: {failure:?}"),
    }
}

/// Returns reason and seq of a refused item.
pub(crate) fn refused(outcome: &Outcome) -> (pb::ErrorReason, i64) {
    match outcome {
        Outcome::Failure(failure) => (failure.reason(), failure.seq),
        Outcome::Appended(appended) => panic!("appended: {appended:?}"),
    }
}

fn call_result<T>(response: Result<Response<T>, Status>) -> CallResult<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}

/// The time in which failed calls are retried. Only retryable failures and cut connections are.
struct RetryWindow {
    until: Instant,
    retries_deadlines: bool,
}

impl RetryWindow {
    fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE, retries_deadlines: false }
    }

    /// Waits before the next attempt. Panics if the failure is not retryable or the time is over.
    async fn after(&self, failure: &Failure) {
        let retryable = matches!(failure.code, Code::Unavailable | Code::ResourceExhausted)
            || self.retries_deadlines && failure.code == Code::DeadlineExceeded;
        let cut = failure.reason.is_empty(); // the failure does not come from the service
        assert!(retryable || cut, "{failure}");
        assert!(Instant::now() < self.until, "no success within {PATIENCE:?}: {failure}");
        tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
    }
}
