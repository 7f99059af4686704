//! Messages that are larger than may be, and such as just may.

use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::conversation_service_server::{ConversationService, ConversationServiceServer};
use tidings_proto::history::{
    Conversation, CreateConversationRequest, CreateConversationResponse, GetConversationRequest,
    GetConversationResponse,
};
use tidings_server::ANSWER_MAX;
use tidings_status::Failure;
use tonic::{Code, Request, Response, Status};

use crate::support::{Running, quick};

/// What the server under test takes.
const REQUEST_MAX: usize = 10_000;

/// A service whose answers are as long as they are asked to be, but for a few bytes of framing.
struct Echo;

#[tonic::async_trait]
impl ConversationService for Echo {
    async fn create_conversation(
        &self,
        _: Request<CreateConversationRequest>,
    ) -> Result<Response<CreateConversationResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_conversation(
        &self,
        request: Request<GetConversationRequest>,
    ) -> Result<Response<GetConversationResponse>, Status> {
        let length = request.into_inner().id.trim_end_matches(' ').parse().unwrap_or(0);
        let conversation = Conversation { id: "x".repeat(length), ..Conversation::default() };
        Ok(Response::new(GetConversationResponse { conversation: Some(conversation) }))
    }
}

/// Asks for an answer of a length, in a request of a length.
async fn echo(answer: usize, request: usize) -> Result<usize, Failure> {
    let echo = ConversationServiceServer::new(Echo);
    let echo = echo.max_decoding_message_size(REQUEST_MAX).max_encoding_message_size(ANSWER_MAX);
    let server = Running::serving(quick(), |server| server.add(echo)).await;
    let client = ConversationServiceClient::new(server.channel().await);
    let request = GetConversationRequest { id: format!("{answer:<request$}") };
    let response = client.max_decoding_message_size(usize::MAX).get_conversation(request).await;
    let conversation = response.map_err(|status| Failure::from(&status))?.into_inner().conversation.unwrap();
    assert!(conversation.id.bytes().all(|byte| byte == b'x'));
    Ok(conversation.id.len())
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_in_both_directions() {
    for (answer, request) in [(10, REQUEST_MAX + 1), (ANSWER_MAX + 1, 10)] {
        let refused = echo(answer, request).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    }
}

#[tokio::test]
async fn a_message_below_the_limit_arrives_whole() {
    assert_eq!(echo(10, REQUEST_MAX - 10).await.unwrap(), 10);
    assert_eq!(echo(ANSWER_MAX - 20, 10).await.unwrap(), ANSWER_MAX - 20);
}
