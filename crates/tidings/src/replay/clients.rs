//! The services as a replay calls them. Every call is retried until it succeeds; all of them are
//! idempotent by contract.

use std::time::Duration;

use tidings_client::{
    AcquireOptions, Acquisition, Addresses, Caller, Endpoints, LockGuard, Policy, Start, Subscription,
};
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
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::Status;

use crate::credentials::{self, CredentialFlagError};

/// Time that one AcquireLock call waits for a lock: half of the contract's maximum.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Error of a call, a lock or a subscription.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A call was refused, or failed until its retries ended.
    #[error(transparent)]
    Call(#[from] tidings_client::Error),
    /// Another owner holds the lock of a conversation.
    #[error("lock {name} not acquired within {}: held by {owner}", humantime::format_duration(*.patience))]
    LockHeld {
        /// Name of the lock.
        name: String,
        /// Owner of the current hold.
        owner: String,
        /// Time waited for the lock.
        patience: Duration,
    },
    /// A subscription was not established.
    #[error("broadcast: no subscription within {}", humantime::format_duration(*.patience))]
    NoSubscription {
        /// Time waited for the subscription.
        patience: Duration,
    },
}

impl Error {
    /// Returns the failure if it concerns the stored data and not the state of the service.
    pub(super) fn precondition_failure(&self) -> Option<&Failure> {
        match self {
            Self::Call(error) => error.precondition_failure(),
            Self::LockHeld { .. } | Self::NoSubscription { .. } => None,
        }
    }
}

/// Addresses of the services, and the credentials for all of them.
#[derive(Clone, Debug)]
pub(super) struct ServiceAddresses<'a> {
    pub(super) user: &'a Addresses,
    pub(super) history: &'a Addresses,
    pub(super) lock: &'a Addresses,
    pub(super) broadcast: &'a Addresses,
    pub(super) credentials: &'a credentials::Args,
}

/// Clients of the four services, with one connection to each instance.
#[derive(Debug)]
pub(super) struct ServiceClients {
    users: Caller,
    history: Caller,
    locks: Caller,
    broadcast: Endpoints,
    patience: Duration,
}

impl ServiceClients {
    /// Creates the clients. Each connects at its first call.
    ///
    /// # Errors
    /// A credential is missing or unusable.
    pub(super) fn new(addresses: &ServiceAddresses<'_>, policy: &Policy) -> Result<Self, CredentialFlagError> {
        let endpoints = |instances| addresses.credentials.endpoints(instances);
        let caller = |instances| Ok::<_, CredentialFlagError>(Caller::new(endpoints(instances)?, policy.clone()));
        Ok(Self {
            users: caller(addresses.user)?,
            history: caller(addresses.history)?,
            locks: caller(addresses.lock)?,
            broadcast: endpoints(addresses.broadcast)?,
            patience: policy.patience,
        })
    }

    /// Returns the number of retries so far.
    pub(super) fn retries(&self) -> u64 {
        self.users.retries() + self.history.retries() + self.locks.retries()
    }

    /// Returns the maximum time for which a call is retried.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Acquires a lock, waiting for it at most as long as a call is retried.
    pub(super) async fn lock(&self, name: &str, owner: &str) -> Result<LockGuard, Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let options = AcquireOptions { wait: remaining.min(LOCK_WAIT), ..AcquireOptions::new(name, owner) };
            let blockers = match LockGuard::acquire(&self.locks, options).await? {
                Acquisition::Granted(guard) => return Ok(guard),
                Acquisition::Held { blockers, .. } | Acquisition::TimedOut { blockers, .. } => blockers,
            };
            if Instant::now() >= deadline {
                let owner =
                    blockers.into_iter().next().map_or_else(|| "an unknown owner".to_owned(), |holder| holder.owner);
                return Err(Error::LockHeld { name: name.to_owned(), owner, patience: self.patience });
            }
        }
    }

    /// Subscribes to the messages published from now on.
    pub(super) fn subscribe(&self, channel: &str) -> Subscription {
        Subscription::open(&self.broadcast, vec![Start::latest(channel)])
    }

    /// Creates a user. Succeeds also if an equal user exists.
    pub(super) async fn create_user(&self, user: User) -> Result<CreateUserResponse, Error> {
        let request = CreateUserRequest { user: Some(user), ..Default::default() };
        let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
        Ok(self.users.call("CreateUser", &request, send).await?)
    }

    /// Reads one user.
    pub(super) async fn user(&self, id: &str) -> Result<User, Error> {
        let request = GetUserRequest { id: id.to_owned(), ..Default::default() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        let response = self.users.call("GetUser", &request, send).await?;
        Ok(response.user.unwrap_or_default())
    }

    /// Reads many users. One unavailable user fails the attempt.
    pub(super) async fn users(&self, ids: Vec<String>) -> Result<Vec<BatchGetUsersResult>, Error> {
        let request = BatchGetUsersRequest { ids, ..Default::default() };
        let send = async |channel, request| {
            let response = UserServiceClient::new(channel).batch_get_users(request).await?;
            if response.get_ref().results.iter().any(|result| result.outcome() == Outcome::Unavailable) {
                return Err(Status::unavailable("some users of the batch are unavailable"));
            }
            Ok(response)
        };
        Ok(self.users.call("BatchGetUsers", &request, send).await?.results)
    }

    /// Creates a conversation. Succeeds also if an equal conversation exists.
    pub(super) async fn create_conversation(&self, conversation: Conversation) -> Result<Conversation, Error> {
        let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
        let send = async |channel, request| ConversationServiceClient::new(channel).create_conversation(request).await;
        let response = self.history.call("CreateConversation", &request, send).await?;
        Ok(response.conversation.unwrap_or_default())
    }

    /// Reads a conversation without its messages.
    pub(super) async fn conversation(&self, id: &str) -> Result<Conversation, Error> {
        let request = GetConversationRequest { id: id.to_owned() };
        let send = async |channel, request| ConversationServiceClient::new(channel).get_conversation(request).await;
        let response = self.history.call("GetConversation", &request, send).await?;
        Ok(response.conversation.unwrap_or_default())
    }

    /// Appends a message.
    pub(super) async fn append(&self, request: &AppendMessageRequest) -> Result<AppendMessageResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).append_message(request).await;
        Ok(self.history.call("AppendMessage", request, send).await?)
    }

    /// Reads a page of a conversation.
    pub(super) async fn messages(&self, request: &ListMessagesRequest) -> Result<ListMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_messages(request).await;
        Ok(self.history.call("ListMessages", request, send).await?)
    }

    /// Reads a page of the messages that a user sent.
    pub(super) async fn authored(&self, request: &ListUserMessagesRequest) -> Result<ListUserMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_user_messages(request).await;
        Ok(self.history.call("ListUserMessages", request, send).await?)
    }
}
