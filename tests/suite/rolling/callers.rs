//! Callers without pauses whose calls must all succeed: with `tidings-client`, and with grpcio.

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

use crate::service::TestService;
use crate::support::root;

/// Number of concurrent callers.
const CALLERS: usize = 8;
const METHOD: &str = "/tidings.user.v1.UserService/GetUser";

/// Creates the user that all callers read.
pub(crate) async fn create_user(service: &TestService) {
    let user = User { id: "ada".to_owned(), ..User::default() };
    let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    UserServiceClient::new(service.channel().await).create_user(request).await.unwrap();
}

fn request() -> GetUserRequest {
    GetUserRequest { id: "ada".to_owned(), ..GetUserRequest::default() }
}

/// Tasks that call with `tidings-client`.
pub(crate) struct RustCallers {
    caller: Caller,
    tasks: Vec<JoinHandle<Result<u64, Error>>>,
    stop: Arc<AtomicBool>,
}

impl RustCallers {
    pub(crate) fn start(addresses: &str) -> Self {
        let caller = Caller::new(Endpoints::new(&addresses.parse().unwrap()), Policy::default());
        let stop = Arc::new(AtomicBool::new(false));
        let call = || {
            let (caller, stop) = (caller.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
                    caller.call("GetUser", &request(), send).await?;
                    answered += 1;
                }
                Ok(answered)
            })
        };
        let tasks = (0..CALLERS).map(|_| call()).collect();
        Self { caller, tasks, stop }
    }

    /// Stops the callers; returns the number of successful calls and of retries.
    ///
    /// # Panics
    /// If a call failed.
    pub(crate) async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for task in self.tasks {
            answered += task.await.unwrap().unwrap_or_else(|error| panic!("a call failed: {error}"));
        }
        (answered, self.caller.retries())
    }
}

/// A Python process that calls with grpcio and `deploy/service_config.json`. Killed on drop.
pub(crate) struct GrpcioCallers(Child);

impl GrpcioCallers {
    /// Starts the process; `None` if Python or grpcio is not installed.
    pub(crate) fn start(addresses: &str, test: &str) -> Option<Self> {
        let python = |arguments: &[&str]| {
            let mut command = Command::new("python3");
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
            command
        };
        let available = python(&["-c", "import grpc"]).stderr(Stdio::null()).status();
        if !available.is_ok_and(|status| status.success()) {
            eprintln!("{test}: runs without grpcio, which is not installed");
            return None;
        }
        let (script, config) =
            (root().join("tests/suite/rolling/grpcio.py"), root().join("deploy/service_config.json"));
        let mut hex = String::new();
        request().encode_to_vec().iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        let (script, config) = (script.to_str().unwrap(), config.to_str().unwrap());
        Some(Self(python(&[script, addresses, config, METHOD, &hex]).spawn().unwrap()))
    }

    /// Stops the process; returns the number of successful calls.
    ///
    /// # Panics
    /// If a call failed.
    pub(crate) fn end(mut self) -> u64 {
        drop(self.0.stdin.take());
        let mut output = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let output: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(output["failed"], 0, "{output}");
        output["answered"].as_u64().unwrap()
    }
}

impl Drop for GrpcioCallers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
