//! The user service as the verbs of `tidings user` call it: flags, calls and output.

use std::time::Duration;

use prost::Message;
use tidings_client::{Addresses, Caller};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, GetUserRequest, User};

use super::error::Error;
use crate::address::{USER_ADDRESS, USER_VARIABLE};
use crate::args::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, out};

/// Flags that all `tidings user` verbs share.
#[derive(Debug, clap::Args)]
pub(super) struct UserServiceArgs {
    /// Address of the user service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = USER_VARIABLE, default_value = USER_ADDRESS)]
    pub(super) addr: Addresses,

    /// Longest wait for one response, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    pub(super) timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) credentials: credentials::Args,
}

impl UserServiceArgs {
    /// Returns a caller of the service with these flags.
    ///
    /// # Errors
    /// A credential is missing or unusable.
    pub(super) fn caller(&self) -> Result<Caller, credentials::CredentialFlagError> {
        Ok(Caller::new(self.credentials.endpoints(&self.addr)?, args::policy(self.timeout)))
    }

    /// Prints `message` as JSON, or the text of `table` if the output format is a table.
    ///
    /// `name` is the message's name in `tidings.user.v1`.
    pub(super) fn print(&self, name: &str, message: &impl Message, table: impl FnOnce() -> String) {
        out::result(match self.output {
            Output::Table => table(),
            output => output.json(&Contracts::compiled_in().json(&format!("tidings.user.v1.{name}"), message)),
        });
    }
}

/// Reads a user from Postgres, at `min_version` or later: an update must not build on a stale copy.
pub(super) async fn read(caller: &Caller, id: &str, min_version: i64) -> Result<User, Error> {
    let request = GetUserRequest { id: id.to_owned(), min_version, consistency: Consistency::Strong.into() };
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    Ok(caller.call("GetUser", &request, send).await?.user.unwrap_or_default())
}
