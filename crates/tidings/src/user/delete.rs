//! `tidings user delete`.

use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{DeleteUserRequest, DeleteUserResponse};
use tonic::Code;

use super::{Error, Service, read};
use crate::{out, shown};

const MORE: &str = "\
Every field but id, version and times is emptied. The id stays taken for ever, the
handle becomes free. The user is deleted only if it still has the version of
--expected-version, or that of a reading just before.

Exit codes: 0 deleted; 1 there is no such user, or it has another version, 2 wrong
usage, 3 a service did not do it.

Examples:
  tidings user delete ada
  tidings user delete ada --expected-version 2";

/// Delete a user.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Whom, by id
    #[arg(value_name = "ID")]
    id: String,

    /// Delete it only if it has this version, 1 or more [default: that which it has now]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    service: Service,
}

/// Deletes the user, and says so.
pub(super) async fn run(Args { id, expected_version, service }: Args) -> Result<(), Error> {
    let caller = service.caller()?;
    let expected_version = match expected_version {
        Some(version) => version,
        None => read(&caller, &id, 0).await?.version,
    };
    let request = DeleteUserRequest { id: id.clone(), expected_version };
    let repeats = caller.repeats();
    let send = async |channel, request| UserServiceClient::new(channel).delete_user(request).await;
    let answer = match caller.call("DeleteUser", &request, send).await {
        Ok(answer) => answer,
        Err(error)
            if caller.repeats() > repeats && error.refused().is_some_and(|failure| failure.code == Code::NotFound) =>
        {
            out::note("it was deleted by an attempt whose answer was lost, or by somebody else at the same time");
            DeleteUserResponse::default()
        }
        Err(error) => return Err(error.into()),
    };
    service.print("DeleteUserResponse", &answer, || match answer.version {
        0 => format!("{id} is deleted"),
        version => format!("{id} is deleted (version {version}, {})", shown::moment(answer.delete_time)),
    });
    Ok(())
}
