//! The services as a replay uses them: every call is repeated until it is answered. Every call of a replay is safe to
//! repeat; the contracts say why.

use std::time::Duration;

use tidings_client::{AcquireOptions, Acquired, Addresses, Caller, Endpoints, LockGuard, Policy, Start, Subscription};
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

use crate::credentials::{self, Unusable};

/// How long one call waits for a lock; half of what it may.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Why a service did not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A call was refused, or not answered for too long.
    #[error(transparent)]
    Call(#[from] tidings_client::Error),
    /// Somebody else holds the lock of a conversation.
    #[error("{owner} holds the lock {name}, for longer than {}", humantime::format_duration(*.patience))]
    Blocked {
        /// The lock.
        name: String,
        /// Who holds it.
        owner: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// A subscription did not begin.
    #[error("broadcast: no subscription within {}", humantime::format_duration(*.patience))]
    Deaf {
        /// How long it was waited for.
        patience: Duration,
    },
}

impl Error {
    /// What the service said, if it speaks of what it stores and not of how it is.
    pub(super) fn contradiction(&self) -> Option<&Failure> {
        match self {
            Self::Call(error) => error.contradiction(),
            Self::Blocked { .. } | Self::Deaf { .. } => None,
        }
    }
}

/// Where the services are.
#[derive(Clone, Debug)]
pub(super) struct Places<'a> {
    /// Users.
    pub(super) user: &'a Addresses,
    /// Conversations and messages.
    pub(super) history: &'a Addresses,
    /// Locks.
    pub(super) lock: &'a Addresses,
    /// Channels.
    pub(super) broadcast: &'a Addresses,
    /// What all of them are shown.
    pub(super) credentials: &'a credentials::Args,
}

/// The services, one connection to each of their instances.
#[derive(Debug)]
pub(super) struct Services {
    users: Caller,
    history: Caller,
    locks: Caller,
    broadcast: Endpoints,
    patience: Duration,
}

impl Services {
    /// Nothing is connected before the first call.
    ///
    /// # Errors
    /// The credentials can not be used.
    pub(super) fn new(places: &Places<'_>, policy: &Policy) -> Result<Self, Unusable> {
        let endpoints = |addresses| places.credentials.endpoints(addresses);
        let caller = |addresses| Ok::<_, Unusable>(Caller::new(endpoints(addresses)?, policy.clone()));
        Ok(Self {
            users: caller(places.user)?,
            history: caller(places.history)?,
            locks: caller(places.lock)?,
            broadcast: endpoints(places.broadcast)?,
            patience: policy.patience,
        })
    }

    /// How many calls were repeats.
    pub(super) fn repeats(&self) -> u64 {
        self.users.repeats() + self.history.repeats() + self.locks.repeats()
    }

    /// How long a call may go on failing.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Takes a lock, waiting for it as long as a call may fail.
    pub(super) async fn lock(&self, name: &str, owner: &str) -> Result<LockGuard, Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let options = AcquireOptions { wait: left.min(LOCK_WAIT), ..AcquireOptions::new(name, owner) };
            let blockers = match LockGuard::acquire(&self.locks, options).await? {
                Acquired::Granted(guard) => return Ok(guard),
                Acquired::Held { blockers, .. } | Acquired::TimedOut { blockers, .. } => blockers,
            };
            if Instant::now() >= deadline {
                let owner =
                    blockers.into_iter().next().map_or_else(|| "nobody we know".to_owned(), |holder| holder.owner);
                return Err(Error::Blocked { name: name.to_owned(), owner, patience: self.patience });
            }
        }
    }

    /// Subscribes to what is published from now on.
    pub(super) fn subscribe(&self, channel: &str) -> Subscription {
        Subscription::open(&self.broadcast, vec![Start::latest(channel)])
    }

    /// Creates a user, or finds that an equal one was created.
    pub(super) async fn create_user(&self, user: User) -> Result<CreateUserResponse, Error> {
        let request = CreateUserRequest { user: Some(user), ..Default::default() };
        let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
        Ok(self.users.call("CreateUser", &request, send).await?)
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
        Ok(self.history.call("AppendMessage", request, send).await?)
    }

    /// Reads a page of a conversation.
    pub(super) async fn messages(&self, request: &ListMessagesRequest) -> Result<ListMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_messages(request).await;
        Ok(self.history.call("ListMessages", request, send).await?)
    }

    /// Reads a page of what a user sent.
    pub(super) async fn authored(&self, request: &ListUserMessagesRequest) -> Result<ListUserMessagesResponse, Error> {
        let send = async |channel, request| HistoryServiceClient::new(channel).list_user_messages(request).await;
        Ok(self.history.call("ListUserMessages", request, send).await?)
    }
}
