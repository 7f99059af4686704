//! `tidings user create`.

use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, User};
use uuid::Uuid;

use super::{Error, Service, field, show};
use crate::out;

const MORE: &str = "\
Repeated with the same ID, or the same --request-id, and the same content it
creates nothing, and prints the user as it is now. Without an ID the service makes
one, and without a --request-id as well every run makes another user.

Exit codes: 0 created or already there; 1 the id, the handle or the request id is
taken, 2 wrong usage, 3 a service did not do it.

Examples:
  tidings user create ada --handle Ada --display-name 'Ada Lovelace' --age 36
  tidings user create --display-name Bot --attribute team=ops --request-id bot-1";

/// Create a user.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The id, 1 to 64 of [A-Za-z0-9._~-] [default: one that the service makes]
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// A public name, unique whatever its case
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    handle: String,

    /// The name to show
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    display_name: String,

    /// Age in years, 0 to 150
    #[arg(long, value_name = "N")]
    age: Option<i32>,

    /// Where a picture is
    #[arg(long, value_name = "URI", default_value = "", hide_default_value = true)]
    avatar_uri: String,

    /// A text about the user
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    bio: String,

    /// Whatever else is to be kept; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = field::attribute)]
    attribute: Vec<(String, String)>,

    /// Name this creation, so that the same command finds the same user: 1 to 64 of [A-Za-z0-9._~-]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    #[command(flatten)]
    service: Service,
}

/// Creates the user, and prints it.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let Args { id, handle, display_name, age, avatar_uri, bio, attribute, request_id, service } = args;
    // A call whose answer is lost is repeated, which must not make a second user.
    let request_id = request_id.or_else(|| id.is_none().then(|| Uuid::now_v7().to_string()));
    let attributes = attribute.into_iter().collect();
    let id = id.unwrap_or_default();
    let user = User { id, handle, display_name, age, avatar_uri, bio, attributes, ..User::default() };
    let request = CreateUserRequest { user: Some(user), request_id: request_id.unwrap_or_default() };
    let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
    let answer = service.caller()?.call("CreateUser", &request, send).await?;
    service.print("CreateUserResponse", &answer, || {
        if answer.deduplicated {
            out::note("it was already there");
        }
        show::user(&answer.user.clone().unwrap_or_default(), None)
    });
    Ok(())
}
