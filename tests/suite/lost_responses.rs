//! Commits whose response from Postgres is lost, because the connection is reset in between. A
//! retry under the same key gets the response of the first call, and no write is applied twice.
//!
//! The default is 200 lost responses per service; `make drills` sets a higher number with
//! `TIDINGS_LOST_ANSWERS`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Proxy, testing};
use tidings_proto::history::body::Content;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::{history, user};
use tidings_status::Failure;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::service::{MAX_WAIT, TestService};
use crate::support::print_figures;

/// Concurrent calls, as many as the service has connections to Postgres.
const CONCURRENT: usize = 16;

/// A service that reaches Postgres through a proxy that drops responses.
struct LossyService {
    service: TestService,
    proxy: Proxy,
    database: String,
}

impl LossyService {
    async fn start(name: &'static str) -> Self {
        let stack = testing::shared().await;
        let database = format!("lost_{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&database).await.unwrap();
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], stack.postgres().port()))).await.unwrap();
        let url = format!("postgres://tidings@{}/{database}", proxy.address());
        // Long enough to open connections on a loaded machine without refusing calls.
        let flags = ["--postgres-url", &url, "--postgres-acquire-timeout", "3s"];
        let service = TestService::start_on(stack, name, &flags, &[]).await;
        service.wait_for_health("readiness SERVING").await;
        Self { service, proxy, database }
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&testing::shared().await.postgres().url(&self.database)).await.unwrap()
    }
}

/// Outcomes of the calls.
#[derive(Default)]
struct LossReport {
    calls: usize,
    /// Failed calls that reported a possible commit; each was committed.
    unknown_outcome: usize,
    /// Failed calls that reported no possible commit; none was committed.
    not_sent: usize,
    took: Duration,
}

impl LossReport {
    /// Makes calls until enough have lost the response of their commit. The proxy recognizes their
    /// queries by `needle`. Each call is retried under its key until it succeeds; `call` returns
    /// true if an earlier call with the key was applied.
    async fn collect(lossy: &LossyService, needle: &str, call: impl AsyncFn(usize) -> Result<bool, Status>) -> Self {
        let wanted = std::env::var("TIDINGS_LOST_ANSWERS").map_or(200, |text| text.parse().expect("a number"));
        let (mut report, started) = (Self::default(), Instant::now());
        while report.unknown_outcome < wanted {
            assert!(
                report.calls < 20 * wanted,
                "only {1} of {0} calls lost the response of their commit",
                report.calls,
                report.unknown_outcome
            );
            let keys = report.calls..report.calls + CONCURRENT;
            lossy.proxy.lose_responses(needle);
            let first = join_all(keys.clone().map(async |key| call(key).await)).await;
            lossy.proxy.heal();
            let retries = join_all(keys.clone().map(async |key| retry_until_ok(&call, key).await)).await;
            for (first, deduplicated) in first.into_iter().zip(retries) {
                report.record(first, deduplicated);
            }
            report.calls = keys.end;
        }
        report.took = started.elapsed();
        report
    }

    fn record(&mut self, first: Result<bool, Status>, deduplicated: bool) {
        let Err(status) = first else {
            assert!(deduplicated, "an acknowledged call was applied");
            return;
        };
        let failure = Failure::from(&status);
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{failure}");
        let may_have_committed = failure.message.contains("may have committed");
        assert_eq!(deduplicated, may_have_committed, "{failure}");
        if may_have_committed {
            self.unknown_outcome += 1;
        } else {
            self.not_sent += 1;
        }
    }

    fn print(&self, method: &str, lossy: &LossyService) {
        print_figures(&format!(
            "\n{method}: {} calls, {} commits with a lost response ({} lost responses in all), {} failures before the \
             commit, 0 duplicates, {:.1?}\n",
            self.calls,
            self.unknown_outcome,
            lossy.proxy.lost(),
            self.not_sent,
            self.took
        ));
    }
}

/// Retries a call until it succeeds.
async fn retry_until_ok(call: &impl AsyncFn(usize) -> Result<bool, Status>, key: usize) -> bool {
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        match call(key).await {
            Ok(deduplicated) => return deduplicated,
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_with_a_lost_commit_response_is_applied_once() {
    let lossy = LossyService::start("user").await;
    let client = UserServiceClient::new(lossy.service.channel().await);
    let create = async |key: usize| {
        let user = user::User { id: format!("lost-{key}"), display_name: format!("Ada {key}"), ..Default::default() };
        let request = user::CreateUserRequest { user: Some(user), request_id: String::new() };
        let response = client.clone().create_user(request).await?.into_inner();
        assert_eq!(response.user.unwrap().version, 1);
        Ok(response.deduplicated)
    };

    let report = LossReport::collect(&lossy, "lost-", create).await;

    report.print("CreateUser", &lossy);
    let created = "SELECT count(*) FROM user_account WHERE id LIKE 'lost-%' AND version = 1";
    let created: i64 = sqlx::query_scalar(created).fetch_one(&mut lossy.postgres().await).await.unwrap();
    assert_eq!(usize::try_from(created).unwrap(), report.calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_with_a_lost_commit_response_is_applied_once() {
    let lossy = LossyService::start("history").await;
    let client = HistoryServiceClient::new(lossy.service.channel().await);
    for number in 0..CONCURRENT {
        create_conversation(&lossy.service, &format!("hall-{number}")).await;
    }
    let seqs = std::sync::Mutex::new(BTreeMap::new());
    let append = async |key: usize| {
        let response = client.clone().append_message(append_request(key)).await?.into_inner();
        let seq = response.message.unwrap().seq;
        let before = seqs.lock().unwrap().insert(key, seq);
        assert!(before.is_none_or(|before| before == seq), "a retry gets the seq of the first append");
        Ok(response.deduplicated)
    };

    let report = LossReport::collect(&lossy, "lost-", append).await;

    report.print("AppendMessage", &lossy);
    let rows: Vec<(i32, i64)> = sqlx::query_as("SELECT substr(client_message_id, 2)::int, seq FROM message ORDER BY 1")
        .fetch_all(&mut lossy.postgres().await)
        .await
        .unwrap();
    let rows: Vec<_> = rows.into_iter().map(|(key, seq)| (usize::try_from(key).unwrap(), seq)).collect();
    assert_eq!(rows, seqs.into_inner().unwrap().into_iter().collect::<Vec<_>>());
    let gaps =
        "SELECT count(*) FROM conversation WHERE last_seq <> (SELECT count(*) FROM message WHERE no = conversation_no)";
    let gaps: i64 = sqlx::query_scalar(gaps).fetch_one(&mut lossy.postgres().await).await.unwrap();
    assert_eq!(gaps, 0);
}

/// Creates an open conversation.
async fn create_conversation(service: &TestService, id: &str) {
    let mut conversations: ConversationServiceClient<Channel> = ConversationServiceClient::new(service.channel().await);
    let kind = history::conversation::Kind::Open.into();
    let conversation = history::Conversation { id: id.to_owned(), kind, ..Default::default() };
    let request = history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
    conversations.create_conversation(request).await.unwrap();
}

/// Returns an append; concurrent ones go to different conversations, so that none waits for a row
/// lock.
fn append_request(key: usize) -> history::AppendMessageRequest {
    history::AppendMessageRequest {
        conversation_id: format!("hall-{}", key % CONCURRENT),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(format!("lost-{key}"))) }),
        ..Default::default()
    }
}
