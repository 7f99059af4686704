//! The services that keep their truth in Postgres: what of their work needs it, and what does not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use rand::distr::{Alphanumeric, SampleString as _};
use rand::{SeedableRng as _, rngs::StdRng};
use tidings_proto::history::body::Content;
use tidings_proto::{history, lock, user};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};

use crate::hostile::plain::Plain;
use crate::service::{SOON, Service};

/// One service.
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Redis gets time to answer on a loaded machine: it is not what is away.
    pub(super) flags: &'static [&'static str],
    /// Its entry in the health of the instance.
    pub(super) entry: &'static str,
    /// Whether it does its main job without Postgres.
    pub(super) goes_on: bool,
    /// What has to be there first.
    pub(super) prepare: fn() -> Vec<Call>,
    /// Writes what Postgres has to keep, under a key: a repeat is safe.
    pub(super) write: fn(i32) -> Call,
    /// The keys of all that was written.
    pub(super) kept: &'static str,
    /// What is answered without Postgres.
    pub(super) read: fn() -> Call,
}

/// A call that is ready to be sent.
pub(super) struct Call {
    method: &'static str,
    request: Vec<u8>,
}

impl Call {
    fn new(method: &'static str, request: &impl Message) -> Self {
        Self { method, request: request.encode_to_vec() }
    }

    pub(super) async fn send(&self, plain: &Plain) -> Result<(), Failure> {
        plain.call(self.method, &[], &self.request).await
    }

    /// What a service answers to it, on a connection of its own.
    pub(super) async fn answer(&self, service: &Service) -> Result<(), Failure> {
        self.send(&Plain::connect(service.address).await).await
    }

    /// Repeats it until it is answered.
    pub(super) async fn insist(&self, service: &Service) {
        let deadline = Instant::now() + SOON;
        while let Err(failure) = self.answer(service).await {
            assert!(Instant::now() < deadline, "{}: {failure}", self.method);
            sleep(failure.retry_after.unwrap_or_default()).await;
        }
    }
}

/// All three.
pub(super) static SUBJECTS: &[Subject] = &[
    Subject {
        name: "user",
        flags: &["--redis-timeout", "1s"],
        entry: "tidings.user.v1.UserService",
        goes_on: false,
        prepare: || vec![create_user("cached".to_owned(), String::new()), get_user()],
        write: |key| create_user(format!("u{key}"), text(key)),
        kept: "SELECT substr(id, 2)::int FROM user_account WHERE id LIKE 'u%'",
        read: get_user,
    },
    Subject {
        name: "history",
        flags: &["--redis-timeout", "1s"],
        entry: "tidings.history.v1.HistoryService",
        goes_on: false,
        prepare: || vec![create_conversation("lobby"), create_conversation("read"), append("read", 0), list()],
        write: |key| append("lobby", key),
        kept: "SELECT substr(client_message_id, 2)::int FROM message JOIN conversation ON no = conversation_no \
               WHERE conversation.id = 'lobby'",
        read: list,
    },
    Subject {
        name: "lock",
        // Nobody believes in leases of a time before.
        flags: &["--redis-timeout", "1s", "--lock-fresh-start"],
        entry: "tidings.lock.v1.LockService",
        goes_on: true,
        prepare: || vec![acquire("first".to_owned(), Duration::from_secs(1))],
        // Longer than all before: Postgres has to know first.
        write: |key| acquire(format!("w{key}"), Duration::from_millis(10_000 + 10 * u64::try_from(key).unwrap())),
        kept: "SELECT key FROM lock_epoch, generate_series(1, 29000) AS key WHERE 10000 + 10 * key <= max_ttl_ms",
        read: || {
            static READS: AtomicU32 = AtomicU32::new(0);
            acquire(format!("r{}", READS.fetch_add(1, Ordering::Relaxed)), Duration::from_secs(1))
        },
    },
];

/// The same for a key each time, and nothing that Postgres could make smaller.
fn text(key: i32) -> String {
    Alphanumeric.sample_string(&mut StdRng::seed_from_u64(key.unsigned_abs().into()), 4000)
}

fn create_user(id: String, bio: String) -> Call {
    let user = user::User { id, display_name: "Ada".to_owned(), bio, ..Default::default() };
    let request = user::CreateUserRequest { user: Some(user), request_id: String::new() };
    Call::new("/tidings.user.v1.UserService/CreateUser", &request)
}

fn get_user() -> Call {
    let request = user::GetUserRequest { id: "cached".to_owned(), ..Default::default() };
    Call::new("/tidings.user.v1.UserService/GetUser", &request)
}

fn create_conversation(id: &str) -> Call {
    let kind = history::conversation::Kind::Open.into();
    let conversation = history::Conversation { id: id.to_owned(), kind, ..Default::default() };
    let request = history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
    Call::new("/tidings.history.v1.ConversationService/CreateConversation", &request)
}

fn append(conversation: &str, key: i32) -> Call {
    let request = history::AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(text(key))) }),
        ..Default::default()
    };
    Call::new("/tidings.history.v1.HistoryService/AppendMessage", &request)
}

fn list() -> Call {
    let request =
        history::ListMessagesRequest { conversation_id: "read".to_owned(), page_size: 1, ..Default::default() };
    Call::new("/tidings.history.v1.HistoryService/ListMessages", &request)
}

fn acquire(name: String, ttl: Duration) -> Call {
    let ttl = Some(ttl.try_into().unwrap());
    let request = lock::AcquireLockRequest { name, owner: "ada".to_owned(), ttl, ..Default::default() };
    Call::new("/tidings.lock.v1.LockService/AcquireLock", &request)
}
