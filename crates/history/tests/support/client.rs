//! A client whose calls read like sentences, and the requests that tests send most.

use std::net::SocketAddr;

use tidings_proto::history as pb;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::{PATIENCE, assert_whole};

pub(crate) use tidings_proto::history::batch_append_messages_result::Outcome;
pub(crate) use tidings_proto::history::list_messages_request::Anchor;
pub(crate) use tidings_proto::history::read_info::Source;

/// An answer, or why there is none.
pub(crate) type Answer<T> = Result<T, Box<Failure>>;

/// More than the largest batch with all its messages in the answer.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    history: HistoryServiceClient<Channel>,
    conversations: ConversationServiceClient<Channel>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self {
            history: HistoryServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_MAX),
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
    ) -> Answer<pb::CreateConversationResponse> {
        answer(self.conversations.clone().create_conversation(request).await)
    }

    pub(crate) async fn conversation(&self, id: &str) -> Answer<pb::Conversation> {
        let request = pb::GetConversationRequest { id: id.to_owned() };
        let got = answer(self.conversations.clone().get_conversation(request).await)?;
        Ok(got.conversation.unwrap())
    }

    pub(crate) async fn append(&self, request: pb::AppendMessageRequest) -> Answer<pb::AppendMessageResponse> {
        answer(self.history.clone().append_message(request).await)
    }

    /// Appends a text that equals its key.
    pub(crate) async fn say(&self, conversation: &str, sender: &str, key: &str) -> pb::Message {
        let appended = self.append(text(conversation, sender, key, key)).await.unwrap();
        appended.message.unwrap()
    }

    /// Appends as a good caller does: again under the same key, until there is an answer.
    pub(crate) async fn insist(&self, request: pb::AppendMessageRequest) -> pb::AppendMessageResponse {
        let tries = Tries::begin();
        loop {
            match self.append(request.clone()).await {
                Ok(appended) => return appended,
                Err(failure) => tries.after(&failure).await,
            }
        }
    }

    pub(crate) async fn batch(&self, requests: Vec<pb::AppendMessageRequest>) -> Answer<Vec<Outcome>> {
        let request = pb::BatchAppendMessagesRequest { requests };
        let done = answer(self.history.clone().batch_append_messages(request).await)?;
        Ok(done.results.into_iter().map(|result| result.outcome.unwrap()).collect())
    }

    /// Makes a conversation of `count` short texts.
    pub(crate) async fn fill(&self, conversation: &str, count: usize) {
        self.create(conversation).await;
        let keys: Vec<_> = (1..=count).map(|number| format!("fill-{number}")).collect();
        for keys in keys.chunks(100) {
            let requests = keys.iter().map(|key| text(conversation, "ada", key, key)).collect();
            self.batch(requests).await.unwrap();
        }
    }

    pub(crate) async fn message(&self, conversation: &str, seq: i64) -> Answer<pb::Message> {
        let request = pb::GetMessageRequest { conversation_id: conversation.to_owned(), seq };
        let got = answer(self.history.clone().get_message(request).await)?;
        assert_eq!(source(got.read_info), Source::Postgres);
        Ok(got.message.unwrap())
    }

    /// Reads a page; that it has no hole is checked.
    pub(crate) async fn list(&self, request: pb::ListMessagesRequest) -> Answer<pb::ListMessagesResponse> {
        let page = answer(self.history.clone().list_messages(request).await)?;
        assert_whole(&page);
        Ok(page)
    }

    /// Reads a page as a good caller does.
    pub(crate) async fn insist_on_page(&self, request: pb::ListMessagesRequest) -> pb::ListMessagesResponse {
        let tries = Tries::begin();
        loop {
            match self.list(request.clone()).await {
                Ok(page) => return page,
                Err(failure) => tries.after(&failure).await,
            }
        }
    }

    /// The newest page of at most `size` messages.
    pub(crate) async fn newest(&self, conversation: &str, size: i32) -> pb::ListMessagesResponse {
        self.list(newest(conversation, size)).await.unwrap()
    }

    pub(crate) async fn authored(&self, request: pb::ListUserMessagesRequest) -> Answer<pb::ListUserMessagesResponse> {
        answer(self.history.clone().list_user_messages(request).await)
    }
}

/// A request for an open conversation.
pub(crate) fn open(id: &str) -> pb::CreateConversationRequest {
    let conversation =
        pb::Conversation { id: id.to_owned(), kind: pb::conversation::Kind::Open.into(), ..Default::default() };
    pb::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() }
}

/// A request to append a text.
pub(crate) fn text(conversation: &str, sender: &str, key: &str, text: &str) -> pb::AppendMessageRequest {
    pb::AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: sender.to_owned(),
        client_message_id: key.to_owned(),
        body: Some(pb::Body { content: Some(pb::body::Content::Text(text.to_owned())) }),
        ..Default::default()
    }
}

/// A body of bytes.
pub(crate) fn binary(data: Vec<u8>, content_type: &str) -> pb::Body {
    let binary = pb::Binary { data: data.into(), content_type: content_type.to_owned() };
    pb::Body { content: Some(pb::body::Content::Binary(binary)) }
}

/// A request for the newest page.
pub(crate) fn newest(conversation: &str, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { conversation_id: conversation.to_owned(), page_size: size, ..Default::default() }
}

/// A request for a page somewhere.
pub(crate) fn at(conversation: &str, anchor: Anchor, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { anchor: Some(anchor), ..newest(conversation, size) }
}

/// A request for the newest page that knows of a message.
pub(crate) fn knowing(conversation: &str, min_seq: i64, size: i32) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { min_seq, ..newest(conversation, size) }
}

/// The layer that answered.
pub(crate) fn source(read_info: Option<pb::ReadInfo>) -> Source {
    read_info.unwrap().source()
}

/// The message of an item that was appended, and whether an earlier one was it.
pub(crate) fn done(outcome: &Outcome) -> (&pb::Message, bool) {
    match outcome {
        Outcome::Appended(appended) => (appended.message.as_ref().unwrap(), appended.deduplicated),
        Outcome::Failure(failure) => panic!("refused: {failure:?}"),
    }
}

/// Reason and number of an item that was refused.
pub(crate) fn refused(outcome: &Outcome) -> (pb::ErrorReason, i64) {
    match outcome {
        Outcome::Failure(failure) => (failure.reason(), failure.seq),
        Outcome::Appended(appended) => panic!("appended: {appended:?}"),
    }
}

fn answer<T>(response: Result<Response<T>, Status>) -> Answer<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}

/// Tries again what says that it may be tried again, and what a dying connection left without an answer.
struct Tries {
    until: Instant,
}

impl Tries {
    fn begin() -> Self {
        Self { until: Instant::now() + PATIENCE }
    }

    /// Waits for a moment, if there is a point in trying again.
    async fn after(&self, failure: &Failure) {
        let known = matches!(failure.code, Code::Unavailable | Code::ResourceExhausted);
        let cut = failure.reason.is_empty(); // no service of ours said that
        assert!(known || cut, "{failure}");
        assert!(Instant::now() < self.until, "no answer within {PATIENCE:?}: {failure}");
        tokio::time::sleep(failure.retry_after.unwrap_or_default() / 10).await;
    }
}
