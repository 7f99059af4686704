//! Callers that go away in the middle of their calls, at random moments: they leave no transaction, no connection that is
//! stuck, and nothing half done.
//!
//! 3,000 calls; `TIDINGS_CANCELS` asks for more, as `make drills` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_proto::history::body::Content;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::{history, user};
use tidings_status::Failure;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::service::Service;
use crate::support::say;

/// So many callers at once, on connections of their own.
const CALLERS: usize = 8;
/// The longest that a caller waits for its answer, in calls of one who is alone: from "not sent yet" to "answered".
const LONGEST: u32 = 8;
/// All is quiet so soon after the last has gone; with what a loaded machine adds.
const QUIET: Duration = Duration::from_secs(1 + 2);

/// Somebody who calls both services.
#[derive(Clone)]
struct Caller {
    users: UserServiceClient<Channel>,
    histories: HistoryServiceClient<Channel>,
}

impl Caller {
    async fn of(users: &Service, histories: &Service) -> Self {
        Self {
            users: UserServiceClient::new(users.channel().await),
            histories: HistoryServiceClient::new(histories.channel().await),
        }
    }

    /// Creates a user, reads one who may not be there, or appends a message, in turn.
    async fn call(&mut self, key: usize) -> Result<(), Status> {
        match key % 3 {
            0 => self.users.create_user(creation(key)).await.map(drop),
            1 => {
                let id = format!("u{}", rand::random_range(0..=key) / 3 * 3);
                let read = self.users.get_user(user::GetUserRequest { id, ..Default::default() }).await;
                read.map(drop).or_else(|status| if status.code() == Code::NotFound { Ok(()) } else { Err(status) })
            }
            _ => self.histories.append_message(message(key)).await.map(drop),
        }
    }
}

fn creation(key: usize) -> user::CreateUserRequest {
    let user = user::User { id: format!("u{key}"), display_name: format!("Ada {key}"), ..Default::default() };
    user::CreateUserRequest { user: Some(user), request_id: String::new() }
}

fn message(key: usize) -> history::AppendMessageRequest {
    history::AppendMessageRequest {
        conversation_id: format!("hall-{}", key / 3 % 8),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(format!("message {key}"))) }),
        ..Default::default()
    }
}

/// How long a call takes here and now.
async fn usual(users: &Service, histories: &Service) -> Duration {
    const CALLS: usize = 60;
    let mut caller = Caller::of(users, histories).await;
    let begun = Instant::now();
    for key in 0..CALLS {
        caller.call(key).await.unwrap();
    }
    begun.elapsed() / u32::try_from(CALLS).unwrap()
}

/// Makes calls that are mostly dropped in their middle; returns how many were answered.
async fn storm(calls: usize, users: &Service, histories: &Service) -> usize {
    let longest = LONGEST * usual(users, histories).await;
    let (begun, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut caller = Caller::of(users, histories).await;
        let (begun, answered) = (Arc::clone(&begun), Arc::clone(&answered));
        callers.spawn(async move {
            loop {
                let key = begun.fetch_add(1, Ordering::Relaxed);
                if key >= calls {
                    return;
                }
                match timeout(rand::random_range(Duration::ZERO..longest), caller.call(key)).await {
                    Ok(Ok(())) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    // Many resets at once end a connection, as an attack would be ended; the next call makes another. And
                    // callers who have gone leave work behind: more than there are connections for is refused.
                    Ok(Err(status)) => {
                        let reason = Failure::from(&status).reason;
                        assert!(["", "OVERLOADED"].contains(&reason.as_str()), "{status:?}");
                    }
                    Err(_) => {}
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    answered.load(Ordering::Relaxed)
}

/// Waits until nothing is under way on the connections of a service, as Postgres and as the service see them.
async fn quiet(service: &Service, since: Instant) -> Duration {
    let mut postgres = postgres(service).await;
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' \
                AND pid <> pg_backend_pid()";
    loop {
        let busy: i64 = sqlx::query_scalar(busy).fetch_one(&mut postgres).await.unwrap();
        let in_use = service.metric(r#"tidings_postgres_connections{pool="callers",state="in_use"}"#).await;
        if busy == 0 && in_use == 0.0 {
            return since.elapsed();
        }
        assert!(since.elapsed() < QUIET, "{busy} backends are busy, {in_use} connections are in use");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn postgres(service: &Service) -> PgConnection {
    PgConnection::connect(&testing::shared().await.postgres().url(service.database())).await.unwrap()
}

async fn count(service: &Service, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut postgres(service).await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_no_transaction_no_stuck_connection_and_nothing_half_done() {
    let calls = std::env::var("TIDINGS_CANCELS").map_or(3_000, |text| text.parse().expect("a number"));
    let (users, histories) = tokio::join!(Service::start("user", &[]), Service::start("history", &[]));
    let mut conversations = ConversationServiceClient::new(histories.channel().await);
    for number in 0..8 {
        let kind = history::conversation::Kind::Open.into();
        let conversation = history::Conversation { id: format!("hall-{number}"), kind, ..Default::default() };
        let request =
            history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
        conversations.create_conversation(request).await.unwrap();
    }

    let answered = storm(calls, &users, &histories).await;

    let gone = Instant::now();
    let (of_users, of_histories) = (quiet(&users, gone).await, quiet(&histories, gone).await);
    let created = count(&users, "SELECT count(*) FROM user_account").await;
    let appended = count(&histories, "SELECT count(*) FROM message").await;
    say(&format!(
        "\n{calls} calls, {answered} answered, the others dropped; {created} users and {appended} messages are there; user quiet \
         {of_users:.1?} after the last, history {of_histories:.1?}\n"
    ));
    assert!((1..calls).contains(&answered));
    let gaps =
        "SELECT count(*) FROM conversation WHERE last_seq <> (SELECT count(*) FROM message WHERE no = conversation_no)";
    assert_eq!(count(&histories, gaps).await, 0);
    let doubles = "SELECT count(*) - count(DISTINCT client_message_id) FROM message";
    assert_eq!(count(&histories, doubles).await, 0);
    repeat_all(calls, &users, &histories).await;
    assert_eq!(count(&histories, gaps).await + count(&histories, doubles).await, 0);
}

/// Makes all calls again, to their end: what was done is found, what was not is done.
async fn repeat_all(calls: usize, users: &Service, histories: &Service) {
    let caller = Caller::of(users, histories).await;
    let mut repeats = JoinSet::new();
    for key in 0..calls {
        let mut caller = caller.clone();
        repeats.spawn(async move { while caller.call(key).await.is_err() {} });
        if repeats.len() > CALLERS {
            repeats.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(ended) = repeats.join_next().await {
        ended.unwrap();
    }
    let keys = |turn: usize| i64::try_from((0..calls).filter(|key| key % 3 == turn).count()).unwrap();
    assert_eq!(count(users, "SELECT count(*) FROM user_account").await, keys(0));
    assert_eq!(count(histories, "SELECT count(*) FROM message").await, keys(2));
}
