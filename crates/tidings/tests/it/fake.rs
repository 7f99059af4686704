//! The services in memory, on loopback, honest unless told otherwise.

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

/// How the services misbehave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// So many calls are answered UNAVAILABLE at first, and not done.
    pub(crate) unavailable_first: usize,
    /// So many calls are never answered at first, and not done.
    pub(crate) hang_first: usize,
    /// Every so manieth append is done and answered UNAVAILABLE; 0: none.
    pub(crate) drop_answer_every: usize,
    /// These users can not be read together with others.
    pub(crate) unreadable: BTreeSet<String>,
    /// The second conversation is read in another way than it was written.
    pub(crate) damage: Option<Damage>,
    /// The messages of the conversation `irc-b` are pushed in another way than they were written.
    pub(crate) push: Option<Push>,
}

/// What is wrong with the messages that are pushed; the number is a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// The message is not pushed.
    Lose(i64),
    /// The message is pushed twice.
    Double(i64),
    /// The message is pushed after the one behind it.
    Delay(i64),
    /// The message says something else.
    Alter(i64),
    /// The channel is lost with this message.
    Reset(i64),
}

/// What is wrong with the messages that are read; the number is a `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The message is missing.
    Lose(i64),
    /// The message is there twice.
    Double(i64),
    /// The message and the one after it have changed places.
    Swap(i64),
    /// The message says something else.
    Alter(i64),
    /// The message is missing among those of its author.
    LoseOfAuthor(i64),
}

/// What is stored; survives the death of the services.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) cached_users: BTreeSet<String>,
    pub(crate) conversations: BTreeMap<String, (Conversation, Vec<Message>)>,
    /// What is pushed with the next message of its conversation.
    delayed: Option<Message>,
    pub(crate) holds: BTreeMap<String, lock::Hold>,
    last_token: i64,
    pub(crate) renewals: usize,
    pub(crate) channels: BTreeMap<String, broadcast::Channel>,
    /// How many streams were opened.
    pub(crate) subscriptions: usize,
    calls: usize,
    pub(crate) appends: usize,
}

/// What every handler has.
#[derive(Clone, Debug)]
struct Shared {
    faults: Faults,
    store: Arc<Mutex<Store>>,
}

fn refusal(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    Reply::new(code, "fake.tidings", reason, message).into_status()
}

fn away() -> Status {
    Reply::new(Code::Unavailable, "fake.tidings", "STORE_AWAY", "the store does not answer")
        .retry_after(Duration::from_millis(10))
        .into_status()
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Begins a call: where the faults of the first calls happen.
    async fn enter(&self) -> Result<(), Status> {
        let call = {
            let mut store = self.store();
            store.calls += 1;
            store.calls
        };
        if call <= self.faults.hang_first {
            std::future::pending::<()>().await;
        }
        if call <= self.faults.unavailable_first { Err(away()) } else { Ok(()) }
    }
}

/// All services on one port, in a runtime of their own, so that they can die like a process.
#[derive(Debug)]
pub(crate) struct Fake {
    shared: Shared,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Fake {
    /// Starts them on a free port.
    pub(crate) fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { faults, store: Arc::default() };
        let runtime = Some(serve(listener, &shared));
        Self { shared, address, runtime }
    }

    /// Where they are.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What they store.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store()
    }

    /// Ends them at once, with all their connections; then their port is free.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_mins(1));
    }

    /// Starts them again where they were.
    pub(crate) fn restart(&mut self) {
        // A child that another test starts has our old socket until it runs a program of its own.
        let mut listener = TcpListener::bind(self.address);
        eventually("the port is free", || {
            if listener.is_err() {
                listener = TcpListener::bind(self.address);
            }
            listener.is_ok()
        });
        self.runtime = Some(serve(listener.unwrap(), &self.shared));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(listener: TcpListener, shared: &Shared) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    let shared = shared.clone();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        Server::builder()
            .add_service(UserServiceServer::new(shared.clone()))
            .add_service(ConversationServiceServer::new(shared.clone()))
            .add_service(HistoryServiceServer::new(shared.clone()))
            .add_service(LockServiceServer::new(shared.clone()))
            .add_service(BroadcastServiceServer::new(shared))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
            .unwrap();
    });
    runtime
}
