//! Calls that are cancelled at random moments leave no transaction, no stuck connection and no
//! partial write.
//!
//! The default is 3,000 calls; `make drills` sets a higher number with `TIDINGS_CANCELS`.

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

use crate::service::TestService;
use crate::support::print_figures;

/// Concurrent callers, each with its own connections.
const CALLERS: usize = 8;
/// Longest wait before a call is cancelled, in multiples of the latency without load: cancels
/// happen at any time between sending and the response.
const MAX_WAIT_IN_CALLS: u32 = 8;
/// Time until no work is left after the last call (promised: 1 s); 2 s more on a loaded machine.
const IDLE_WITHIN: Duration = Duration::from_secs(1 + 2);

/// Connections of one caller to both services.
#[derive(Clone)]
struct CancellingCaller {
    users: UserServiceClient<Channel>,
    histories: HistoryServiceClient<Channel>,
}

impl CancellingCaller {
    async fn connect(users: &TestService, histories: &TestService) -> Self {
        Self {
            users: UserServiceClient::new(users.channel().await),
            histories: HistoryServiceClient::new(histories.channel().await),
        }
    }

    /// Depending on `key`, creates a user, reads one that may be absent, or appends a message.
    async fn call(&mut self, key: usize) -> Result<(), Status> {
        match key % 3 {
            0 => self.users.create_user(create_user_request(key)).await.map(drop),
            1 => {
                let id = format!("u{}", rand::random_range(0..=key) / 3 * 3);
                let read = self.users.get_user(user::GetUserRequest { id, ..Default::default() }).await;
                read.map(drop).or_else(|status| if status.code() == Code::NotFound { Ok(()) } else { Err(status) })
            }
            _ => self.histories.append_message(append_message_request(key)).await.map(drop),
        }
    }
}

fn create_user_request(key: usize) -> user::CreateUserRequest {
    let user = user::User { id: format!("u{key}"), display_name: format!("Ada {key}"), ..Default::default() };
    user::CreateUserRequest { user: Some(user), request_id: String::new() }
}

fn append_message_request(key: usize) -> history::AppendMessageRequest {
    history::AppendMessageRequest {
        conversation_id: format!("hall-{}", key / 3 % 8),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(format!("message {key}"))) }),
        ..Default::default()
    }
}

/// Measures the mean latency of a call without load.
async fn mean_latency(users: &TestService, histories: &TestService) -> Duration {
    const CALLS: usize = 60;
    let mut caller = CancellingCaller::connect(users, histories).await;
    let started = Instant::now();
    for key in 0..CALLS {
        caller.call(key).await.unwrap();
    }
    started.elapsed() / u32::try_from(CALLS).unwrap()
}

/// Makes calls and cancels most of them before their response; returns the number of answered
/// calls.
async fn call_and_cancel(calls: usize, users: &TestService, histories: &TestService) -> usize {
    let max_wait = MAX_WAIT_IN_CALLS * mean_latency(users, histories).await;
    let (started, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut caller = CancellingCaller::connect(users, histories).await;
        let (started, answered) = (Arc::clone(&started), Arc::clone(&answered));
        callers.spawn(async move {
            loop {
                let key = started.fetch_add(1, Ordering::Relaxed);
                if key >= calls {
                    return;
                }
                match timeout(rand::random_range(Duration::ZERO..max_wait), caller.call(key)).await {
                    Ok(Ok(())) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    // Too many resets close a connection, as in a rapid reset; the next call opens
                    // another. Cancelled calls still use a Postgres connection for a moment: calls
                    // beyond the pool are refused.
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

/// Waits until no connection of a service to Postgres is in use, in Postgres' and in the service's
/// view.
async fn wait_until_idle(service: &TestService, since: Instant) -> Duration {
    let mut postgres = postgres(service).await;
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' \
                AND pid <> pg_backend_pid()";
    loop {
        let busy: i64 = sqlx::query_scalar(busy).fetch_one(&mut postgres).await.unwrap();
        let in_use = service.metric(r#"tidings_postgres_connections{pool="callers",state="in_use"}"#).await;
        if busy == 0 && in_use == 0.0 {
            return since.elapsed();
        }
        assert!(since.elapsed() < IDLE_WITHIN, "{busy} backends are busy, {in_use} connections are in use");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn postgres(service: &TestService) -> PgConnection {
    PgConnection::connect(&testing::shared().await.postgres().url(service.database())).await.unwrap()
}

async fn count(service: &TestService, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut postgres(service).await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_leave_no_transaction_and_no_partial_write() {
    let calls = std::env::var("TIDINGS_CANCELS").map_or(3_000, |text| text.parse().expect("a number"));
    let (users, histories) = tokio::join!(TestService::start("user", &[]), TestService::start("history", &[]));
    let mut conversations = ConversationServiceClient::new(histories.channel().await);
    for number in 0..8 {
        let kind = history::conversation::Kind::Open.into();
        let conversation = history::Conversation { id: format!("hall-{number}"), kind, ..Default::default() };
        let request =
            history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
        conversations.create_conversation(request).await.unwrap();
    }

    let answered = call_and_cancel(calls, &users, &histories).await;

    let ended = Instant::now();
    let (users_idle, histories_idle) = (wait_until_idle(&users, ended).await, wait_until_idle(&histories, ended).await);
    let created = count(&users, "SELECT count(*) FROM user_account").await;
    let appended = count(&histories, "SELECT count(*) FROM message").await;
    print_figures(&format!(
        "\n{calls} calls, {answered} answered, the others cancelled; {created} users and {appended} messages stored; \
         user idle {users_idle:.1?} after the last call, history {histories_idle:.1?}\n"
    ));
    assert!((1..calls).contains(&answered));
    let gaps =
        "SELECT count(*) FROM conversation WHERE last_seq <> (SELECT count(*) FROM message WHERE no = conversation_no)";
    assert_eq!(count(&histories, gaps).await, 0);
    let duplicates = "SELECT count(*) - count(DISTINCT client_message_id) FROM message";
    assert_eq!(count(&histories, duplicates).await, 0);
    retry_all(calls, &users, &histories).await;
    assert_eq!(count(&histories, gaps).await + count(&histories, duplicates).await, 0);
}

/// Retries all calls until they succeed, and asserts that each was applied exactly once.
async fn retry_all(calls: usize, users: &TestService, histories: &TestService) {
    let caller = CancellingCaller::connect(users, histories).await;
    let mut retries = JoinSet::new();
    for key in 0..calls {
        let mut caller = caller.clone();
        retries.spawn(async move { while caller.call(key).await.is_err() {} });
        if retries.len() > CALLERS {
            retries.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(ended) = retries.join_next().await {
        ended.unwrap();
    }
    let keys = |remainder: usize| i64::try_from((0..calls).filter(|key| key % 3 == remainder).count()).unwrap();
    assert_eq!(count(users, "SELECT count(*) FROM user_account").await, keys(0));
    assert_eq!(count(histories, "SELECT count(*) FROM message").await, keys(2));
}
