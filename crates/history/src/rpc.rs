//! The handlers: check, call, answer.

mod status;

use tidings_proto::history as pb;
use tidings_proto::history::conversation_service_server::ConversationService;
use tidings_proto::history::history_service_server::HistoryService;
use tidings_trace::TraceParent;
use tonic::{Request, Response, Status};

use crate::domain::Histories;
use crate::model::Source;
use crate::wire;

/// The contract over the use cases.
#[derive(Clone, Debug)]
pub struct Rpc {
    histories: Histories,
}

impl Rpc {
    /// The contract over these histories.
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
        let (conversation, deduplicated) = self.histories.create(new).await?;
        let conversation = Some(wire::conversation(conversation));
        Ok(Response::new(pb::CreateConversationResponse { conversation, deduplicated }))
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
        let cause = cause(&request);
        let message = wire::append(request.into_inner())?;
        let (message, deduplicated) = self.histories.append_one(message, cause).await?;
        Ok(Response::new(wire::appended(message, deduplicated)))
    }

    async fn batch_append_messages(
        &self,
        request: Request<pb::BatchAppendMessagesRequest>,
    ) -> Result<Response<pb::BatchAppendMessagesResponse>, Status> {
        let cause = cause(&request);
        let messages = wire::batch_append(request.into_inner())?;
        let outcomes = self.histories.append(messages, cause).await?;
        let results = outcomes.into_iter().map(|outcome| match outcome {
            Ok((message, deduplicated)) => wire::batch_appended(message, deduplicated),
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
        let read_info = Some(wire::read_info(Source::Postgres, false));
        Ok(Response::new(pb::GetMessageResponse { message: Some(wire::message(message)), read_info }))
    }

    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        let asked = wire::list(request.into_inner())?;
        let page = self.histories.page(&asked.conversation, asked.anchor, asked.size.messages, asked.min_seq).await?;
        Ok(Response::new(wire::page(&asked, page)))
    }

    async fn list_user_messages(
        &self,
        request: Request<pb::ListUserMessagesRequest>,
    ) -> Result<Response<pb::ListUserMessagesResponse>, Status> {
        let asked = wire::list_authored(request.into_inner())?;
        let found = self.histories.authored(&asked.user, asked.after, asked.size.messages + 1).await?;
        Ok(Response::new(wire::authored_page(&asked, found)))
    }
}

/// The trace that a call is part of, if it is part of one.
fn cause<T>(request: &Request<T>) -> Option<TraceParent> {
    request.extensions().get().copied()
}
