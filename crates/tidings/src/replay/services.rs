//! The services as a replay uses them: every call is repeated until it is answered.

use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::history::{
    AppendMessageRequest, AppendMessageResponse, Conversation, CreateConversationRequest, GetConversationRequest,
    ListMessagesRequest, ListMessagesResponse, ListUserMessagesRequest, ListUserMessagesResponse,
};
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, BatchGetUsersResult, CreateUserRequest, CreateUserResponse, GetUserRequest, User,
};
use tonic::Status;
use tonic::transport::Channel;

use super::retry::{Error, Retry};
use crate::address::Address;

/// Both services, one connection to each.
#[derive(Debug)]
pub(super) struct Services {
    users: UserServiceClient<Channel>,
    conversations: ConversationServiceClient<Channel>,
    history: HistoryServiceClient<Channel>,
    user_addr: Address,
    history_addr: Address,
    retry: Retry,
}

impl Services {
    /// Nothing is connected before the first call.
    pub(super) fn new(user_addr: Address, history_addr: Address, retry: Retry) -> Self {
        let history = history_addr.channel();
        Self {
            users: UserServiceClient::new(user_addr.channel()),
            conversations: ConversationServiceClient::new(history.clone()),
            history: HistoryServiceClient::new(history),
            user_addr,
            history_addr,
            retry,
        }
    }

    /// How many calls were repeats.
    pub(super) fn repeats(&self) -> u64 {
        self.retry.repeats()
    }

    /// Creates a user, or finds that an equal one was created.
    pub(super) async fn create_user(&self, user: User) -> Result<CreateUserResponse, Error> {
        let request = CreateUserRequest { user: Some(user), ..Default::default() };
        let send = async |request| self.users.clone().create_user(request).await;
        self.retry.run("CreateUser", &self.user_addr, &request, send).await
    }

    /// Reads one user.
    pub(super) async fn user(&self, id: &str) -> Result<User, Error> {
        let request = GetUserRequest { id: id.to_owned(), ..Default::default() };
        let send = async |request| self.users.clone().get_user(request).await;
        let answer = self.retry.run("GetUser", &self.user_addr, &request, send).await?;
        Ok(answer.user.unwrap_or_default())
    }

    /// Reads many users. One that cannot be read now is a call that failed.
    pub(super) async fn users(&self, ids: Vec<String>) -> Result<Vec<BatchGetUsersResult>, Error> {
        let request = BatchGetUsersRequest { ids, ..Default::default() };
        let send = async |request| {
            let answer = self.users.clone().batch_get_users(request).await?;
            if answer.get_ref().results.iter().any(|result| result.outcome() == Outcome::Unavailable) {
                return Err(Status::unavailable("some of the users cannot be read now"));
            }
            Ok(answer)
        };
        Ok(self.retry.run("BatchGetUsers", &self.user_addr, &request, send).await?.results)
    }

    /// Creates a conversation, or finds that an equal one was created.
    pub(super) async fn create_conversation(&self, conversation: Conversation) -> Result<Conversation, Error> {
        let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
        let send = async |request| self.conversations.clone().create_conversation(request).await;
        let answer = self.retry.run("CreateConversation", &self.history_addr, &request, send).await?;
        Ok(answer.conversation.unwrap_or_default())
    }

    /// Reads a conversation without its messages.
    pub(super) async fn conversation(&self, id: &str) -> Result<Conversation, Error> {
        let request = GetConversationRequest { id: id.to_owned() };
        let send = async |request| self.conversations.clone().get_conversation(request).await;
        let answer = self.retry.run("GetConversation", &self.history_addr, &request, send).await?;
        Ok(answer.conversation.unwrap_or_default())
    }

    /// Sends a message.
    pub(super) async fn append(&self, request: &AppendMessageRequest) -> Result<AppendMessageResponse, Error> {
        let send = async |request| self.history.clone().append_message(request).await;
        self.retry.run("AppendMessage", &self.history_addr, request, send).await
    }

    /// Reads a page of a conversation.
    pub(super) async fn messages(&self, request: &ListMessagesRequest) -> Result<ListMessagesResponse, Error> {
        let send = async |request| self.history.clone().list_messages(request).await;
        self.retry.run("ListMessages", &self.history_addr, request, send).await
    }

    /// Reads a page of what a user sent.
    pub(super) async fn authored(&self, request: &ListUserMessagesRequest) -> Result<ListUserMessagesResponse, Error> {
        let send = async |request| self.history.clone().list_user_messages(request).await;
        self.retry.run("ListUserMessages", &self.history_addr, request, send).await
    }
}
