//! Commits whose answer is lost on its way from Postgres: the connection is reset between the two. Whoever repeats the call
//! under its key gets the answer of the first, and nothing is done twice.
//!
//! 200 in each service; `TIDINGS_LOST_ANSWERS` asks for more, as `make drills` does.

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

use crate::service::{SOON, Service};
use crate::support::say;

/// So many calls are under way at once: as many as the service has connections.
const AT_ONCE: usize = 16;

/// A service that reaches its database over a way on which answers get lost.
struct World {
    service: Service,
    proxy: Proxy,
    database: String,
}

impl World {
    async fn start(name: &'static str) -> Self {
        let stack = testing::shared().await;
        let database = format!("lost_{name}_{}", testing::key_prefix());
        stack.postgres().create_database(&database).await.unwrap();
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], stack.postgres().port()))).await.unwrap();
        let url = format!("postgres://tidings@{}/{database}", proxy.address());
        // So long that no call is refused because its connection took its time on a loaded machine.
        let flags = ["--postgres-url", &url, "--postgres-acquire-timeout", "3s"];
        let service = Service::on(stack, name, &flags, &[]).await;
        service.until("readiness SERVING").await;
        Self { service, proxy, database }
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&testing::shared().await.postgres().url(&self.database)).await.unwrap()
    }
}

/// What became of the calls.
#[derive(Default)]
struct Account {
    calls: usize,
    /// Refused in the middle of the work, each of which had been done.
    ambiguous: usize,
    /// Refused before it, none of which had.
    away: usize,
    took: Duration,
}

impl Account {
    /// Makes calls, all of which hold `needle`, until enough have lost their answer; repeats each under its key until it is answered. `call` says whether
    /// an earlier call with the key had done it.
    async fn of(world: &World, needle: &str, call: impl AsyncFn(usize) -> Result<bool, Status>) -> Self {
        let wanted = std::env::var("TIDINGS_LOST_ANSWERS").map_or(200, |text| text.parse().expect("a number"));
        let (mut account, begun) = (Self::default(), Instant::now());
        while account.ambiguous < wanted {
            assert!(account.calls < 20 * wanted, "of {} calls {} lost their answer", account.calls, account.ambiguous);
            let keys = account.calls..account.calls + AT_ONCE;
            world.proxy.lose_answers(needle);
            let first = join_all(keys.clone().map(async |key| call(key).await)).await;
            world.proxy.heal();
            let repeats = join_all(keys.clone().map(async |key| insist(&call, key).await)).await;
            for (first, repeated) in first.into_iter().zip(repeats) {
                account.note(first, repeated);
            }
            account.calls = keys.end;
        }
        account.took = begun.elapsed();
        account
    }

    fn note(&mut self, first: Result<bool, Status>, repeated: bool) {
        let Err(status) = first else {
            assert!(repeated, "what was acknowledged had been done");
            return;
        };
        let refusal = Failure::from(&status);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{refusal}");
        let may_be_done = refusal.message.contains("may have been done");
        assert_eq!(repeated, may_be_done, "{refusal}");
        if may_be_done {
            self.ambiguous += 1;
        } else {
            self.away += 1;
        }
    }

    fn tell(&self, method: &str, world: &World) {
        say(&format!(
            "\n{method}: {} calls, {} commits without an answer ({} answers lost in all), {} refused before, 0 duplicates, \
             {:.1?}\n",
            self.calls,
            self.ambiguous,
            world.proxy.lost(),
            self.away,
            self.took
        ));
    }
}

/// Repeats a call until it is answered.
async fn insist(call: &impl AsyncFn(usize) -> Result<bool, Status>, key: usize) -> bool {
    let deadline = Instant::now() + SOON;
    loop {
        match call(key).await {
            Ok(repeated) => return repeated,
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_whose_answer_is_lost_between_commit_and_reply_is_done_once() {
    let world = World::start("user").await;
    let client = UserServiceClient::new(world.service.channel().await);
    let create = async |key: usize| {
        let user = user::User { id: format!("lost-{key}"), display_name: format!("Ada {key}"), ..Default::default() };
        let request = user::CreateUserRequest { user: Some(user), request_id: String::new() };
        let answer = client.clone().create_user(request).await?.into_inner();
        assert_eq!(answer.user.unwrap().version, 1);
        Ok(answer.deduplicated)
    };

    let account = Account::of(&world, "lost-", create).await;

    account.tell("CreateUser", &world);
    let created = "SELECT count(*) FROM user_account WHERE id LIKE 'lost-%' AND version = 1";
    let created: i64 = sqlx::query_scalar(created).fetch_one(&mut world.postgres().await).await.unwrap();
    assert_eq!(usize::try_from(created).unwrap(), account.calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_between_commit_and_reply_is_done_once() {
    let world = World::start("history").await;
    let client = HistoryServiceClient::new(world.service.channel().await);
    for number in 0..AT_ONCE {
        open(&world.service, &format!("hall-{number}")).await;
    }
    let told = std::sync::Mutex::new(BTreeMap::new());
    let append = async |key: usize| {
        let answer = client.clone().append_message(message(key)).await?.into_inner();
        let seq = answer.message.unwrap().seq;
        let before = told.lock().unwrap().insert(key, seq);
        assert!(before.is_none_or(|before| before == seq), "a repeat is told the number of the first");
        Ok(answer.deduplicated)
    };

    let account = Account::of(&world, "lost-", append).await;

    account.tell("AppendMessage", &world);
    let rows: Vec<(i32, i64)> = sqlx::query_as("SELECT substr(client_message_id, 2)::int, seq FROM message ORDER BY 1")
        .fetch_all(&mut world.postgres().await)
        .await
        .unwrap();
    let rows: Vec<_> = rows.into_iter().map(|(key, seq)| (usize::try_from(key).unwrap(), seq)).collect();
    assert_eq!(rows, told.into_inner().unwrap().into_iter().collect::<Vec<_>>());
    let gaps =
        "SELECT count(*) FROM conversation WHERE last_seq <> (SELECT count(*) FROM message WHERE no = conversation_no)";
    let gaps: i64 = sqlx::query_scalar(gaps).fetch_one(&mut world.postgres().await).await.unwrap();
    assert_eq!(gaps, 0);
}

/// Creates a conversation for everybody.
async fn open(service: &Service, id: &str) {
    let mut conversations: ConversationServiceClient<Channel> = ConversationServiceClient::new(service.channel().await);
    let kind = history::conversation::Kind::Open.into();
    let conversation = history::Conversation { id: id.to_owned(), kind, ..Default::default() };
    let request = history::CreateConversationRequest { conversation: Some(conversation), request_id: String::new() };
    conversations.create_conversation(request).await.unwrap();
}

/// Calls that are made at once are of conversations of their own: they do not wait for one another.
fn message(key: usize) -> history::AppendMessageRequest {
    history::AppendMessageRequest {
        conversation_id: format!("hall-{}", key % AT_ONCE),
        sender_id: "ada".to_owned(),
        client_message_id: format!("m{key}"),
        body: Some(history::Body { content: Some(Content::Text(format!("lost-{key}"))) }),
        ..Default::default()
    }
}
