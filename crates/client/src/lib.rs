//! What a Rust service uses to call the services of Tidings: time-outs, repeats of what is safe to repeat, locks that are
//! renewed and known to be lost, subscriptions that resume.
//!
//! [`Endpoints`] are the instances of one service: they take turns, and one that is out is passed over. Everything else is
//! made of them.
//!
//! # Calls
//! A [`Caller`] sends a call until one of the instances has answered, within a patience and a [`Budget`]. Only for calls that
//! are safe to repeat: the contracts say which are, and why.
//!
//! ```no_run
//! use tidings_client::{Caller, Endpoints, Policy};
//! use tidings_proto::user::GetUserRequest;
//! use tidings_proto::user::user_service_client::UserServiceClient;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let users = Caller::new(Endpoints::new(&"one:7401,two:7401".parse()?), Policy::default());
//!
//! let request = GetUserRequest { id: "ada".into(), ..Default::default() };
//! let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
//! let user = users.call("GetUser", &request, send).await?.user;
//! # Ok(())
//! # }
//! ```
//!
//! # Locks
//! A [`LockGuard`] renews its lease, and never believes in it past its deadline, whatever the network does.
//!
//! ```no_run
//! use tidings_client::{AcquireOptions, Acquired, Caller, LockGuard};
//!
//! # async fn import(token: i64) {}
//! # async fn example(locks: Caller) -> Result<(), Box<dyn std::error::Error>> {
//! match LockGuard::acquire(&locks, AcquireOptions::new("nightly", "billing-1")).await? {
//!     Acquired::Granted(lock) => {
//!         lock.guard(import(lock.token())).await?; // dropped unfinished if the lock is lost
//!         lock.release().await?;
//!     }
//!     Acquired::Held { blockers, .. } | Acquired::TimedOut { blockers, .. } => println!("not now: {blockers:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Subscriptions
//! A [`Subscription`] brings each message once and in order, across instances that come and go, and says what is missing.
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
//!         Event::CaughtUp(_) => println!("what follows is live"),
//!         Event::Gap(_) | Event::Reset(_) => println!("something is missing here"),
//!     }
//! }
//! # }
//! ```

mod address;
mod attempt;
mod backoff;
mod budget;
mod caller;
mod credentials;
mod endpoints;
#[cfg(test)]
mod fake;
mod lock;
mod refusal;
mod subscription;
mod trace;

pub use address::{Address, Addresses, Malformed};
pub use attempt::within;
pub use budget::Budget;
pub use caller::{Caller, Error, Policy};
pub use credentials::{Credentials, Files, Part, Unusable};
pub use endpoints::{Endpoint, Endpoints};
pub use lock::{AcquireOptions, Acquired, LockGuard, Lost, Moment};
pub use refusal::Refusal;
pub use subscription::{Event, Start, Subscription};
