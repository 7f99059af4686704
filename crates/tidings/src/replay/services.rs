//! The services as a replay uses them: every call is repeated until it is answered. Every call of a replay is safe to
//! repeat; the contracts say why.

use tidings_client::{Addresses, Caller, Endpoints, Error, Policy};
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

/// Both services, one connection to each of their instances.
#[derive(Debug)]
pub(super) struct Services {
    users: Caller,
    history: Caller,
}

impl Services {
    /// Nothing is connected before the first call.
    pub(super) fn new(users: &Addresses, history: &Addresses, policy: Policy) -> Self {
        let users = Caller::new(Endpoints::new(users), policy.clone());
        let history = Caller::new(Endpoints::new(history), policy);
        Self { users, history }
    }

    /// How many calls were repeats.
    pub(super) fn repeats(&self) -> u64 {
        self.users.repeats() + self.history.repeats()
    }

    /// Creates a user, or finds that an equal one was created.
    pub(super) async fn create_user(&self, user: User) -> Result<CreateUserResponse, Error> {
        let request = CreateUserRequest { user: Some(user), ..Default::default() };
        let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
        self.users.call("CreateUser", &request, send).await
    }

    /// Reads one user.
    pub(super) async fn user(&self, id: &str) -> Result<User, Error> {
        let request = GetUserRequest { id: id.to_owned(), ..Default::default() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        let answer = self.users.call("GetUser", &request, send).await?;
        Ok(answer.user.unwrap_or_default())
    }

    /// Reads many users. One that cannot be read now is a call that failed.
    pub(super) async fn users(&self, ids: Vec<String>) -> Result<Vec<BatchGetUsersResult>, Error> {
        let request = BatchGetUsersRequest { ids, ..Default::default() };
        let send = async |channel, request| {
            let answer = UserServiceClient::new(channel).batch_get_users(request).await?;
            if answer.get_ref().results.iter().any(|result| result.outcome() == Outcome::Unavailable) {
                return Err(Status::unavailable("some of the users cannot be read now"));
            }
            Ok(answer)
        };
        Ok(self.users.call("BatchGetUsers", &request, send).await?.results)
    }

    /// Creates a conversation, or finds that an equal one was created.
    pub(super) async fn create_conversation(&self, conversation: Conversation) -> Result<Conversation, Error> {
        let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
        let send = async |channel, request| ConversationServiceClient::new(channel).create_conversation(request).await;
        let answer = self.history.call("CreateConversation", &request, send).await?;
        Ok(answer.conversation.unwrap_or_default())
    }

    /// Reads a conversation without its messages.
    pub(super) async fn conversation(&self, id: &str) -> Result<Conversation, Error> {
        let request = GetConversationRequest { id: id.to_owned() };
        let send = async |channel, request| ConversationServiceClient::new(channel).get_conversation(request).await;
        let answer = self.history.call("GetConversation", &request, send).await?;
        Ok(answer.conversation.unwrap_or_default())
    }

    /// Sends a message.
    pub(super) async fn append(&self, request: &AppendMessageRequest) -> Result<AppendMessageResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).append_message(request).await;
        self.history.call("AppendMessage", request, send).await
    }

    /// Reads a page of a conversation.
    pub(super) async fn messages(&self, request: &ListMessagesRequest) -> Result<ListMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_messages(request).await;
        self.history.call("ListMessages", request, send).await
    }

    /// Reads a page of what a user sent.
    pub(super) async fn authored(&self, request: &ListUserMessagesRequest) -> Result<ListUserMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_user_messages(request).await;
        self.history.call("ListUserMessages", request, send).await
    }
}
