//! `tidings user get`: reads one or more users.

use std::collections::{HashMap, HashSet};

use tidings_client::Caller;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, BatchGetUsersResponse, BatchGetUsersResult, Consistency, GetUserByHandleRequest,
    GetUserRequest,
};
use tonic::Status;

use super::error::Error;
use super::service::UserServiceArgs;
use super::show;
use crate::args::Output;
use crate::contracts::Contracts;
use crate::out;

/// The largest number of ids in one `BatchGetUsers`.
const BATCH_MAX: usize = 500;

const MORE: &str = "\
One user is shown with all its fields and the source of the response: local_cache
(the memory of the instance), redis or postgres. Several users are shown one per
line; with jsonl each is an object with id, outcome, user and readInfo. If some users
cannot be read, the others are printed.

Exit codes: 0 all users exist, 1 a user does not exist or is below --min-version,
2 wrong usage, 3 the service failed or did not respond, or only for some users.

Examples:
  tidings user get ada
  tidings user get ada --min-version 2
  tidings user get --handle Ada
  tidings user get ada bob --output jsonl | jq -r .user.displayName";

/// Read one or more users.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// User ids
    #[arg(value_name = "ID", required_unless_present = "handle")]
    ids: Vec<String>,

    /// Read the user with this handle, without regard to case
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    handle: Option<String>,

    /// Read this version or a later one, e.g. the version that your last change returned; for one
    /// user only
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    min_version: i64,

    /// Bypass all caches and read from Postgres
    #[arg(long)]
    strong: bool,

    #[command(flatten)]
    service: UserServiceArgs,
}

/// Reads the users and prints them.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let Args { ids, handle, min_version, strong, service } = args;
    let consistency = if strong { Consistency::Strong } else { Consistency::Cached };
    let caller = service.caller()?;
    if let Some(handle) = handle {
        let request = GetUserByHandleRequest { handle, min_version, consistency: consistency.into() };
        return by_handle(&service, &caller, request).await;
    }
    match <[String; 1]>::try_from(ids) {
        Ok([id]) => one(&service, &caller, GetUserRequest { id, min_version, consistency: consistency.into() }).await,
        Err(_) if min_version != 0 => Err(Error::MinVersionForSeveral),
        Err(ids) => several(&service, &caller, ids, consistency).await,
    }
}

async fn one(service: &UserServiceArgs, caller: &Caller, request: GetUserRequest) -> Result<(), Error> {
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    let response = caller.call("GetUser", &request, send).await?;
    service.print("GetUserResponse", &response, || {
        show::user(&response.user.clone().unwrap_or_default(), response.read_info.as_ref())
    });
    Ok(())
}

async fn by_handle(service: &UserServiceArgs, caller: &Caller, request: GetUserByHandleRequest) -> Result<(), Error> {
    let send = async |channel, request| UserServiceClient::new(channel).get_user_by_handle(request).await;
    let response = caller.call("GetUserByHandle", &request, send).await?;
    service.print("GetUserByHandleResponse", &response, || {
        show::user(&response.user.clone().unwrap_or_default(), response.read_info.as_ref())
    });
    Ok(())
}

async fn several(
    service: &UserServiceArgs,
    caller: &Caller,
    ids: Vec<String>,
    consistency: Consistency,
) -> Result<(), Error> {
    let (results, failed) = read(caller, &ids, consistency).await;
    if results.is_empty()
        && let Some(error) = failed
    {
        return Err(error.into());
    }
    let absent = results.iter().filter(|result| result.outcome() == Outcome::NotFound);
    let absent: Vec<_> = absent.map(|result| result.id.clone()).collect();
    match service.output {
        Output::Jsonl => {
            let contracts = Contracts::compiled_in();
            let json = |result| Output::Jsonl.json(&contracts.json("tidings.user.v1.BatchGetUsersResult", result));
            results.iter().map(json).all(out::stream);
        }
        _ => service.print("BatchGetUsersResponse", &BatchGetUsersResponse { results: results.clone() }, || {
            show::users(results.iter().filter_map(|result| Some((result.user.as_ref()?, result.read_info.as_ref()))))
        }),
    }
    match failed {
        Some(cause) => {
            let known: HashSet<_> = results.iter().map(|result| &result.id).collect();
            let unread = ids.into_iter().filter(|id| !known.contains(id)).collect();
            Err(Error::Unread { unread, absent, cause })
        }
        None if absent.is_empty() => Ok(()),
        None => Err(Error::Absent(absent)),
    }
}

/// Reads users in the order of `ids`, and returns the first error if some are missing.
///
/// Requests again the users that a response leaves out, e.g. because it is full.
async fn read(
    caller: &Caller,
    ids: &[String],
    consistency: Consistency,
) -> (Vec<BatchGetUsersResult>, Option<tidings_client::Error>) {
    let send = async |channel, request| {
        let response = UserServiceClient::new(channel).batch_get_users(request).await?;
        if response.get_ref().results.iter().all(|result| result.outcome() == Outcome::Unavailable) {
            return Err(Status::unavailable("none of the users could be read"));
        }
        Ok(response)
    };
    let (mut found, mut failed) = (HashMap::new(), None);
    let mut missing = ids.to_vec();
    while !missing.is_empty() && failed.is_none() {
        let later = missing.split_off(missing.len().min(BATCH_MAX));
        let request = BatchGetUsersRequest { ids: missing, consistency: consistency.into() };
        let results = match caller.call("BatchGetUsers", &request, send).await {
            Ok(response) => response.results,
            Err(error) => {
                failed = Some(error);
                Vec::new()
            }
        };
        let (unknown, known): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|result| result.outcome() == Outcome::Unavailable);
        found.extend(known.into_iter().map(|result| (result.id.clone(), result)));
        // Ids not yet requested go first: the unavailable ones may stay unavailable.
        missing = later.into_iter().chain(unknown.into_iter().map(|result| result.id)).collect();
    }
    (ids.iter().filter_map(|id| found.get(id).cloned()).collect(), failed)
}
