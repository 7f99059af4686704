//! Messages above and just below the size limits.

use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::conversation_service_server::{ConversationService, ConversationServiceServer};
use tidings_proto::history::{
    Conversation, CreateConversationRequest, CreateConversationResponse, GetConversationRequest,
    GetConversationResponse,
};
use tidings_server::RESPONSE_MAX;
use tidings_status::Failure;
use tonic::{Code, Request, Response, Status};

use crate::support::{TestServer, no_lame_duck};

/// Maximum request size of the server under test, in bytes.
const REQUEST_MAX: usize = 10_000;

/// A service with responses of the requested length, except for a few bytes of framing.
struct EchoService;

#[tonic::async_trait]
impl ConversationService for EchoService {
    async fn create_conversation(
        &self,
        _: Request<CreateConversationRequest>,
    ) -> Result<Response<CreateConversationResponse>, Status> {
        Err(Status::unimplemented("not used"))
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

/// Requests a response of one length with a request of another.
async fn echo(response_bytes: usize, request_bytes: usize) -> Result<usize, Failure> {
    let echo = ConversationServiceServer::new(EchoService);
    let echo = echo.max_decoding_message_size(REQUEST_MAX).max_encoding_message_size(RESPONSE_MAX);
    let server = TestServer::serving(no_lame_duck(), |server| server.add(echo)).await;
    let client = ConversationServiceClient::new(server.channel().await);
    let request = GetConversationRequest { id: format!("{response_bytes:<request_bytes$}") };
    let response = client.max_decoding_message_size(usize::MAX).get_conversation(request).await;
    let conversation = response.map_err(|status| Failure::from(&status))?.into_inner().conversation.unwrap();
    assert!(conversation.id.bytes().all(|byte| byte == b'x'));
    Ok(conversation.id.len())
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_in_both_directions() {
    for (response_bytes, request_bytes) in [(10, REQUEST_MAX + 1), (RESPONSE_MAX + 1, 10)] {
        let refused = echo(response_bytes, request_bytes).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    }
}

#[tokio::test]
async fn a_message_below_the_limit_arrives_whole() {
    assert_eq!(echo(10, REQUEST_MAX - 10).await.unwrap(), 10);
    assert_eq!(echo(RESPONSE_MAX - 20, 10).await.unwrap(), RESPONSE_MAX - 20);
}
