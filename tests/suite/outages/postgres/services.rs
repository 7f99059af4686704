//! The services that store data in Postgres: calls that need it, and calls that do not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use rand::distr::{Alphanumeric, SampleString as _};
use rand::{SeedableRng as _, rngs::StdRng};
use tidings_proto::history::body::Content;
use tidings_proto::{history, lock, user};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};

use crate::hostile::grpc_client::GrpcClient;
use crate::service::{MAX_WAIT, TestService};

/// A service with its calls for an outage of Postgres.
pub(super) struct ServiceCase {
    pub(super) name: &'static str,
    /// Flags of the service, with a Redis timeout that is long enough for a loaded machine.
    pub(super) flags: &'static [&'static str],
    /// Health entry of the service.
    pub(super) entry: &'static str,
    /// True if the main method of the service works without Postgres.
    pub(super) works_without_postgres: bool,
    /// Calls that create what the other calls need.
    pub(super) prepare: fn() -> Vec<PreparedCall>,
    /// Returns an idempotent write to Postgres under a key.
    pub(super) write: fn(i32) -> PreparedCall,
    /// SQL that selects the keys of all stored writes.
    pub(super) stored_keys: &'static str,
    /// Returns a call that does not need Postgres.
    pub(super) read: fn() -> PreparedCall,
}

/// A method with its encoded request.
pub(super) struct PreparedCall {
    method: &'static str,
    request: Vec<u8>,
}

impl PreparedCall {
    fn new(method: &'static str, request: &impl Message) -> Self {
        Self { method, request: request.encode_to_vec() }
    }

    pub(super) async fn send(&self, client: &GrpcClient) -> Result<(), Failure> {
        client.call(self.method, &[], &self.request).await
    }

    /// Sends the call on a new connection and returns its outcome.
    pub(super) async fn send_to(&self, service: &TestService) -> Result<(), Failure> {
        self.send(&GrpcClient::connect(service.address).await).await
    }

    /// Retries the call until it succeeds; panics after [`MAX_WAIT`].
    pub(super) async fn send_until_ok(&self, service: &TestService) {
        let deadline = Instant::now() + MAX_WAIT;
        while let Err(failure) = self.send_to(service).await {
            assert!(Instant::now() < deadline, "{}: {failure}", self.method);
            sleep(failure.retry_after.unwrap_or_default()).await;
        }
    }
}

/// User, history and lock.
pub(super) static SERVICES: &[ServiceCase] = &[
    ServiceCase {
        name: "user",
        flags: &["--redis-timeout", "1s"],
        entry: "tidings.user.v1.UserService",
        works_without_postgres: false,
        prepare: || vec![create_user("cached".to_owned(), String::new()), get_user()],
        write: |key| create_user(format!("u{key}"), text(key)),
        stored_keys: "SELECT substr(id, 2)::int FROM user_account WHERE id LIKE 'u%'",
        read: get_user,
    },
    ServiceCase {
        name: "history",
        flags: &["--redis-timeout", "1s"],
        entry: "tidings.history.v1.HistoryService",
        works_without_postgres: false,
        prepare: || vec![create_conversation("lobby"), create_conversation("read"), append("read", 0), list()],
        write: |key| append("lobby", key),
        stored_keys: "SELECT substr(client_message_id, 2)::int FROM message JOIN conversation ON no = conversation_no \
               WHERE conversation.id = 'lobby'",
        read: list,
    },
    ServiceCase {
        name: "lock",
        // Skips the quarantine: no leases exist that were granted before.
        flags: &["--redis-timeout", "1s", "--lock-fresh-start"],
        entry: "tidings.lock.v1.LockService",
        works_without_postgres: true,
        prepare: || vec![acquire("first".to_owned(), Duration::from_secs(1))],
        // Each TTL is longer than all before, so the service must store it in Postgres first.
        write: |key| acquire(format!("w{key}"), Duration::from_millis(10_000 + 10 * u64::try_from(key).unwrap())),
        stored_keys: "SELECT key FROM lock_epoch, generate_series(1, 29000) AS key WHERE 10000 + 10 * key <= max_ttl_ms",
        read: || {
            static READS: AtomicU32 = AtomicU32::new(0);
            acquire(format!("r{}", READS.fetch_add(1, Ordering::Relaxed)), Duration::from_secs(1))
        },
    },
];

/// Returns 4,000 incompressible characters, always the same for a key.
fn text(key: i32) -> String {
    Alphanumeric.sample_string(&mut StdRng::seed_from_u64(key.unsigned_abs().into()), 4000)
}

fn create_user(id: String, bio: String) -> PreparedCall {
    let user = user::User { id, display_name: "Ada".to_owned(), bio, ..Default::default() };
    let request = user::CreateUserRequest { user: Some(user), request_id: String::new() };
    PreparedCall::new("/tidings.user.v1.UserService/CreateUser", &request)
}

fn get_user() -> PreparedCall {
    let request = user::GetUserRequest { id: "cached".to_owned(), ..Default::default() };
    PreparedCall::new("/tidings.user.v1.UserService/GetUser", &request)
}

fn create_conversation(id: &str) -> PreparedCall {
    let kind = history::conversation::Kind::Open.into();
    let conversation = history::Conversation { id: id.to_owned(), kind, ..Default::default() };
    let request = history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
    PreparedCall::new("/tidings.history.v1.ConversationService/CreateConversation", &request)
}

fn append(conversation: &str, key: i32) -> PreparedCall {
    let request = history::AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(text(key))) }),
        ..Default::default()
    };
    PreparedCall::new("/tidings.history.v1.HistoryService/AppendMessage", &request)
}

fn list() -> PreparedCall {
    let request =
        history::ListMessagesRequest { conversation_id: "read".to_owned(), page_size: 1, ..Default::default() };
    PreparedCall::new("/tidings.history.v1.HistoryService/ListMessages", &request)
}

fn acquire(name: String, ttl: Duration) -> PreparedCall {
    let ttl = Some(ttl.try_into().unwrap());
    let request = lock::AcquireLockRequest { name, owner: "ada".to_owned(), ttl, ..Default::default() };
    PreparedCall::new("/tidings.lock.v1.LockService/AcquireLock", &request)
}
