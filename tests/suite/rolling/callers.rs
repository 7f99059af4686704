//! Calls without a pause, each of which has to succeed: through the client of Tidings, and through gRPC's own library.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use tidings_client::{Caller, Endpoints, Error, Policy};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, GetUserRequest, User};
use tokio::task::JoinHandle;

use crate::service::Service;
use crate::support::root;

const CALLERS: usize = 8;
const METHOD: &str = "/tidings.user.v1.UserService/GetUser";

/// The user whom all ask for.
pub(crate) async fn create_user(service: &Service) {
    let user = User { id: "ada".to_owned(), ..User::default() };
    let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    UserServiceClient::new(service.channel().await).create_user(request).await.unwrap();
}

fn request() -> GetUserRequest {
    GetUserRequest { id: "ada".to_owned(), ..GetUserRequest::default() }
}

/// Tasks that call through `tidings-client` as any service would.
pub(crate) struct RustCallers {
    caller: Caller,
    tasks: Vec<JoinHandle<Result<u64, Error>>>,
    over: Arc<AtomicBool>,
}

impl RustCallers {
    pub(crate) fn start(addresses: &str) -> Self {
        let caller = Caller::new(Endpoints::new(&addresses.parse().unwrap()), Policy::default());
        let over = Arc::new(AtomicBool::new(false));
        let call = || {
            let (caller, over) = (caller.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
                    caller.call("GetUser", &request(), send).await?;
                    answered += 1;
                }
                Ok(answered)
            })
        };
        let tasks = (0..CALLERS).map(|_| call()).collect();
        Self { caller, tasks, over }
    }

    /// How many calls were answered, and how many attempts were repeats.
    ///
    /// # Panics
    /// If a call failed.
    pub(crate) async fn end(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for task in self.tasks {
            answered += task.await.unwrap().unwrap_or_else(|error| panic!("a call failed: {error}"));
        }
        (answered, self.caller.repeats())
    }
}

/// A process that calls through grpcio, by `deploy/service_config.json`. Killed when dropped.
pub(crate) struct GrpcioCallers(Child);

impl GrpcioCallers {
    /// Nothing without Python's grpcio.
    pub(crate) fn start(addresses: &str, test: &str) -> Option<Self> {
        let python = |arguments: &[&str]| {
            let mut command = Command::new("python3");
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
            command
        };
        let there = python(&["-c", "import grpc"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            eprintln!("{test}: without grpcio, Python has none here");
            return None;
        }
        let (script, config) =
            (root().join("tests/suite/rolling/grpcio.py"), root().join("deploy/service_config.json"));
        let mut hex = String::new();
        request().encode_to_vec().iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        let (script, config) = (script.to_str().unwrap(), config.to_str().unwrap());
        Some(Self(python(&[script, addresses, config, METHOD, &hex]).spawn().unwrap()))
    }

    /// How many calls were answered.
    ///
    /// # Panics
    /// If a call failed.
    pub(crate) fn end(mut self) -> u64 {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["failed"], 0, "{said}");
        said["answered"].as_u64().unwrap()
    }
}

impl Drop for GrpcioCallers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
