//! In-memory services on loopback, with optional faults.

pub(crate) mod broadcast;
mod history;
pub(crate) mod lock;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_proto::broadcast::broadcast_service_server::BroadcastServiceServer;
use tidings_proto::history::conversation_service_server::ConversationServiceServer;
use tidings_proto::history::history_service_server::HistoryServiceServer;
use tidings_proto::history::{Conversation, Message};
use tidings_proto::lock::lock_service_server::LockServiceServer;
use tidings_proto::user::User;
use tidings_proto::user::user_service_server::UserServiceServer;
use tidings_status::Reply;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

use crate::eventually;

/// The faults of the services; none by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeFaults {
    /// The first N calls fail with UNAVAILABLE, without effect.
    pub(crate) unavailable_first: usize,
    /// The first N calls never get a response, and have no effect.
    pub(crate) hang_first: usize,
    /// Every N-th append takes effect but fails with UNAVAILABLE; 0: none.
    pub(crate) drop_response_every: usize,
    /// Users that BatchGetUsers reports as unavailable.
    pub(crate) unreadable: BTreeSet<String>,
    /// A fault in reads of the second conversation.
    pub(crate) damage: Option<Damage>,
    /// A fault in pushes of the conversation `irc-b`.
    pub(crate) push: Option<Push>,
}

/// A fault in the pushed messages; the number is a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// The message is not pushed.
    Lose(i64),
    /// The message is pushed twice.
    Double(i64),
    /// The message is pushed after its successor.
    Delay(i64),
    /// The message has another text.
    Alter(i64),
    /// The channel is reset in place of this message.
    Reset(i64),
}

/// A fault in the messages that are read; the number is a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The message is missing.
    Lose(i64),
    /// The message is read twice.
    Double(i64),
    /// The message and its successor are swapped.
    Swap(i64),
    /// The message has another text.
    Alter(i64),
    /// The message is missing in the list of its author's messages.
    LoseOfAuthor(i64),
}

/// The stored data, which survives a kill of the services.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) cached_users: BTreeSet<String>,
    pub(crate) conversations: BTreeMap<String, (Conversation, Vec<Message>)>,
    /// A message that is pushed after the next one of its conversation.
    delayed: Option<Message>,
    pub(crate) holds: BTreeMap<String, lock::FakeHold>,
    last_token: i64,
    pub(crate) renewals: usize,
    pub(crate) channels: BTreeMap<String, broadcast::Channel>,
    /// Number of streams opened.
    pub(crate) subscriptions: usize,
    calls: usize,
    pub(crate) appends: usize,
}

/// The handler of all services.
#[derive(Clone, Debug)]
struct FakeHandler {
    faults: FakeFaults,
    store: Arc<Mutex<Store>>,
}

fn refusal(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    Reply::new(code, "fake.tidings", reason, message).into_status()
}

fn unavailable() -> Status {
    Reply::new(Code::Unavailable, "fake.tidings", "STORE_AWAY", "the store is unavailable")
        .retry_after(Duration::from_millis(10))
        .into_status()
}

impl FakeHandler {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Counts a call, and applies the faults of the first calls.
    async fn enter(&self) -> Result<(), Status> {
        let call = {
            let mut store = self.store();
            store.calls += 1;
            store.calls
        };
        if call <= self.faults.hang_first {
            std::future::pending::<()>().await;
        }
        if call <= self.faults.unavailable_first { Err(unavailable()) } else { Ok(()) }
    }
}

/// All services on one port, in their own runtime, so that they can be killed like a process.
#[derive(Debug)]
pub(crate) struct Fake {
    handler: FakeHandler,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Fake {
    /// Starts the services on a free port.
    pub(crate) fn start(faults: FakeFaults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handler = FakeHandler { faults, store: Arc::default() };
        let runtime = Some(serve(listener, &handler));
        Self { handler, address, runtime }
    }

    /// Returns the address of the services.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Locks and returns the stored data.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.handler.store()
    }

    /// Ends the services and all their connections; then the port is free.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_mins(1));
    }

    /// Starts the services again, on the same port.
    pub(crate) fn restart(&mut self) {
        // A child process of another test inherits the old socket and keeps it open until its exec.
        let mut listener = TcpListener::bind(self.address);
        eventually("the port is free", || {
            if listener.is_err() {
                listener = TcpListener::bind(self.address);
            }
            listener.is_ok()
        });
        self.runtime = Some(serve(listener.unwrap(), &self.handler));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(listener: TcpListener, handler: &FakeHandler) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    let handler = handler.clone();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        Server::builder()
            .add_service(UserServiceServer::new(handler.clone()))
            .add_service(ConversationServiceServer::new(handler.clone()))
            .add_service(HistoryServiceServer::new(handler.clone()))
            .add_service(LockServiceServer::new(handler.clone()))
            .add_service(BroadcastServiceServer::new(handler))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
            .unwrap();
    });
    runtime
}
