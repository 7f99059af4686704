//! `tidings user delete`: deletes a user.

use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{DeleteUserRequest, DeleteUserResponse};
use tonic::Code;

use super::error::Error;
use super::service::{UserServiceArgs, read};
use crate::{display, out};

const MORE: &str = "\
All fields except id, version and times are cleared. The id stays taken for good;
the handle becomes free. The user is deleted only if it has the version given with
--expected-version, by default the one read just before.

Exit codes: 0 deleted, 1 there is no such user or it has another version, 2 wrong
usage, 3 the service failed or did not respond.

Examples:
  tidings user delete ada
  tidings user delete ada --expected-version 2";

/// Delete a user.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// User id
    #[arg(value_name = "ID")]
    id: String,

    /// Delete the user only at this version, 1 or more [default: its current version]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    service: UserServiceArgs,
}

/// Deletes the user and prints the result.
pub(super) async fn run(Args { id, expected_version, service }: Args) -> Result<(), Error> {
    let caller = service.caller()?;
    let expected_version = match expected_version {
        Some(version) => version,
        None => read(&caller, &id, 0).await?.version,
    };
    let request = DeleteUserRequest { id: id.clone(), expected_version };
    let retries = caller.retries();
    let send = async |channel, request| UserServiceClient::new(channel).delete_user(request).await;
    let response = match caller.call("DeleteUser", &request, send).await {
        Ok(response) => response,
        Err(error)
            if caller.retries() > retries && error.refused().is_some_and(|failure| failure.code == Code::NotFound) =>
        {
            out::note("the user is deleted: by an earlier attempt whose response was lost, or by another caller");
            DeleteUserResponse::default()
        }
        Err(error) => return Err(error.into()),
    };
    service.print("DeleteUserResponse", &response, || match response.version {
        0 => format!("{id} is deleted"),
        version => format!("{id} is deleted (version {version}, {})", display::timestamp(response.delete_time)),
    });
    Ok(())
}
