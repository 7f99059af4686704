//! Gets a user: any version, or at least the version that a write returned.
//!
//! A cached read may miss the newest writes of other instances. Pass the version that your last
//! write returned as `min_version`: then every instance returns that version or a newer one.
//!
//! Beside a running `make up`:
//!
//! ```console run
//! $ tidings user create grace --display-name 'Grace Hopper' >/dev/null
//! $ tidings user update grace --set age=85 >/dev/null
//! $ cargo run --quiet -p tidings-client --example get_user -- grace 2
//! grace, version 2: Grace Hopper
//! $ cargo run --quiet -p tidings-client --example get_user -- charles
//! there is no user charles
//! $ cargo run --quiet -p tidings-client --example get_user -- grace 3
//! Error: GetUser at ...: FAILED_PRECONDITION VERSION_AHEAD: ...
//! ```
//!
//! `TIDINGS_USER_ADDR` holds the addresses of the instances, by default `127.0.0.1:7401`.

#![expect(clippy::print_stdout, reason = "the result of the example")]

use std::env;

use anyhow::Context as _;
use tidings_client::{Caller, Endpoints, Error, Policy};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{ErrorReason, GetUserRequest, User};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let id = arguments.next().context("usage: get_user ID [MIN_VERSION]")?;
    let min_version =
        arguments.next().map_or(Ok(0), |text| text.parse::<i64>()).context("MIN_VERSION is not a number")?;

    let addresses = env::var("TIDINGS_USER_ADDR").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    // One per process: clones share the connections and the budget of retries.
    let users = Caller::new(Endpoints::new(&addresses.parse()?), Policy::default());

    match get_user(&users, &id, min_version).await? {
        Some(user) => println!("{}, version {}: {}", user.id, user.version, user.display_name),
        None => println!("there is no user {id}"),
    }
    Ok(())
}

/// Returns the user at `min_version` or newer; `None` if there is no such user.
///
/// Fails if the service refuses the call (`VERSION_AHEAD`: no write has made that version yet), or
/// if no instance responds within the patience of the caller.
async fn get_user(users: &Caller, id: &str, min_version: i64) -> Result<Option<User>, Error> {
    let request = GetUserRequest { id: id.to_owned(), min_version, ..Default::default() };
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    match users.call("GetUser", &request, send).await {
        Ok(response) => Ok(response.user),
        Err(error) if error.has_reason(ErrorReason::UserNotFound.text()) => Ok(None),
        Err(error) => Err(error),
    }
}
