//! Client library for the services of Tidings: timeouts, safe retries, lock guards, subscriptions.
//!
//! [`Endpoints`] holds the instances of one service. It picks them round-robin and skips an
//! instance that failed for a second. Short calls, calls that wait and streams have connections of
//! their own, one for each 64 calls. Everything else here is built on it.
//!
//! Whole programs to copy from are in `examples/`: `get_user`, `lock`, `subscribe`, `credentials`.
//!
//! # Calls
//! A [`Caller`] retries a call until an instance responds, within its patience and its
//! [`RetryBudget`]. Use it only for calls that are safe to retry; the contracts list them with the
//! reason.
//!
//! ```
//! use tidings_client::{Caller, Endpoints, Policy};
//! use tidings_proto::user::GetUserRequest;
//! use tidings_proto::user::user_service_client::UserServiceClient;
//!
//! # use tidings_proto::user::{GetUserResponse, User};
//! # use tonic::transport::server::{Server, TcpIncoming};
//! # use tonic::{Request, Response, Status};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let addresses = "one:7401,two:7401";
//! # // A service with this one method.
//! # let get_user = tower::service_fn(|request: Request<GetUserRequest>| async move {
//! #     let user = User { id: request.into_inner().id, version: 1, ..Default::default() };
//! #     Ok::<_, Status>(Response::new(GetUserResponse { user: Some(user), ..Default::default() }))
//! # });
//! # let service = tower::service_fn(move |call: http::Request<_>| async move {
//! #     let codec = tidings_proto::Codec::<GetUserResponse, GetUserRequest>::default();
//! #     let response = tonic::server::Grpc::new(codec).unary(get_user, call).await;
//! #     Ok::<_, std::convert::Infallible>(response)
//! # });
//! # let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
//! # let addresses = incoming.local_addr()?.to_string();
//! # let routes = tonic::service::AxumRouter::new().fallback_service(service);
//! # tokio::spawn(Server::builder().add_routes(routes.into()).serve_with_incoming(incoming));
//! let users = Caller::new(Endpoints::new(&addresses.parse()?), Policy::default());
//!
//! let request = GetUserRequest { id: "ada".into(), ..Default::default() };
//! let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
//! let user = users.call("GetUser", &request, send).await?.user;
//! assert_eq!(user.map(|user| user.version), Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! # Locks
//! A [`LockGuard`] renews its lease in the background. It counts as lost when its deadline passes,
//! even if the service cannot be reached.
//!
//! ```no_run
//! use tidings_client::{AcquireOptions, Acquisition, Caller, LockGuard};
//!
//! # async fn import(token: i64) {}
//! # async fn example(locks: Caller) -> Result<(), Box<dyn std::error::Error>> {
//! match LockGuard::acquire(&locks, AcquireOptions::new("nightly", "billing-1")).await? {
//!     Acquisition::Granted(lock) => {
//!         lock.guard(import(lock.token())).await?; // cancelled if the lock is lost
//!         lock.release().await?;
//!     }
//!     Acquisition::Held { blockers, .. } | Acquisition::TimedOut { blockers, .. } => {
//!         println!("held by {blockers:?}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Subscriptions
//! A [`Subscription`] delivers each message once and in order. It survives restarts of instances
//! and reports missing messages as gaps.
//!
//! ```no_run
//! use tidings_client::{Endpoints, Event, Start, Subscription};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broadcast = Endpoints::new(&"one:7404,two:7404".parse()?);
//! let mut orders = Subscription::open(&broadcast, vec![Start::last("orders/eu", 10)]);
//! loop {
//!     match orders.next().await? {
//!         Event::Message(message) => println!("{}: {:?}", message.offset, message.data),
//!         Event::CaughtUp(_) => println!("live from here on"),
//!         Event::Gap(_) | Event::Reset(_) => println!("messages are missing here"),
//!     }
//! }
//! # }
//! ```

mod address;
mod attempt;
mod attempt_failure;
mod backoff;
mod caller;
mod channel_pools;
mod credentials;
mod endpoints;
mod error;
#[cfg(test)]
mod fake;
mod lock;
mod retry_budget;
mod subscription;
mod trace;

pub use address::{Address, Addresses, InvalidAddress};
pub use attempt::with_timeout;
pub use attempt_failure::AttemptFailure;
pub use caller::{Caller, Policy};
pub use channel_pools::{CallClass, ChannelSlot};
pub use credentials::{CredentialFiles, CredentialKind, Credentials, InvalidCredentials};
pub use endpoints::{Endpoint, Endpoints};
pub use error::Error;
pub use lock::{AcquireOptions, Acquisition, BootInstant, LockGuard, Lost};
pub use retry_budget::RetryBudget;
pub use subscription::{Event, Start, Subscription};
