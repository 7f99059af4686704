//! The gRPC handlers: each validates the request, calls the use case and encodes the response.

mod status;

use tidings_proto::history as pb;
use tidings_proto::history::conversation_service_server::ConversationService;
use tidings_proto::history::history_service_server::HistoryService;
use tidings_server::trace_parent;
use tonic::{Request, Response, Status};

use crate::domain::Histories;
use crate::model::ReadSource;
use crate::wire;

/// The gRPC services of history.
#[derive(Clone, Debug)]
pub struct Rpc {
    histories: Histories,
}

impl Rpc {
    /// Creates the services over the use cases.
    pub fn new(histories: Histories) -> Self {
        Self { histories }
    }
}

#[tonic::async_trait]
impl ConversationService for Rpc {
    async fn create_conversation(
        &self,
        request: Request<pb::CreateConversationRequest>,
    ) -> Result<Response<pb::CreateConversationResponse>, Status> {
        let new = wire::create(request.into_inner())?;
        let created = self.histories.create(new).await?;
        Ok(Response::new(wire::created(created)))
    }

    async fn get_conversation(
        &self,
        request: Request<pb::GetConversationRequest>,
    ) -> Result<Response<pb::GetConversationResponse>, Status> {
        let id = wire::get_conversation(request.into_inner())?;
        let conversation = self.histories.get_conversation(&id).await?;
        Ok(Response::new(pb::GetConversationResponse { conversation: Some(wire::conversation(conversation)) }))
    }
}

#[tonic::async_trait]
impl HistoryService for Rpc {
    async fn append_message(
        &self,
        request: Request<pb::AppendMessageRequest>,
    ) -> Result<Response<pb::AppendMessageResponse>, Status> {
        let trace_parent = trace_parent(&request);
        let message = wire::append(request.into_inner())?;
        let appended = self.histories.append(message, trace_parent).await?;
        Ok(Response::new(wire::appended(appended)))
    }

    async fn batch_append_messages(
        &self,
        request: Request<pb::BatchAppendMessagesRequest>,
    ) -> Result<Response<pb::BatchAppendMessagesResponse>, Status> {
        let trace_parent = trace_parent(&request);
        let messages = wire::batch_append(request.into_inner())?;
        let outcomes = self.histories.append_all(messages, trace_parent).await?;
        let results = outcomes.into_iter().map(|outcome| match outcome {
            Ok(appended) => wire::batch_appended(appended),
            Err(error) => wire::batch_refused(status::reason(&error), error.to_string(), status::seq(&error)),
        });
        Ok(Response::new(pb::BatchAppendMessagesResponse { results: results.collect() }))
    }

    async fn get_message(
        &self,
        request: Request<pb::GetMessageRequest>,
    ) -> Result<Response<pb::GetMessageResponse>, Status> {
        let (conversation, seq) = wire::get(request.into_inner())?;
        let message = self.histories.get(&conversation, seq).await?;
        let read_info = Some(wire::read_info(ReadSource::Postgres, false));
        Ok(Response::new(pb::GetMessageResponse { message: Some(wire::message(message)), read_info }))
    }

    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        let query = wire::list(request.into_inner())?;
        let page = self.histories.page(&query.conversation, query.anchor, query.size.messages, query.min_seq).await?;
        Ok(Response::new(wire::page(&query, page)))
    }

    async fn list_user_messages(
        &self,
        request: Request<pb::ListUserMessagesRequest>,
    ) -> Result<Response<pb::ListUserMessagesResponse>, Status> {
        let query = wire::list_authored(request.into_inner())?;
        let messages = self.histories.authored(&query.user, query.after, query.size.messages + 1).await?;
        Ok(Response::new(wire::authored_page(&query, messages)))
    }
}
