//! `tidings user get`.

use std::collections::{HashMap, HashSet};

use tidings_client::Caller;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, BatchGetUsersResponse, BatchGetUsersResult, Consistency, GetUserByHandleRequest,
    GetUserRequest,
};
use tonic::Status;

use super::{Error, Service, show};
use crate::cli::Output;
use crate::contracts::Contracts;
use crate::out;

/// The most ids that one call may ask for.
const AT_ONCE: usize = 500;

const MORE: &str = "\
One user is shown with all it has, and where the answer came from: near (the
memory of the instance), redis or postgres. Several users are a line each; with
jsonl each is an object with id, outcome, user and readInfo. Those that can be read
are printed, even if others can not.

Exit codes: 0 they are all there; 1 there is no such user, or not yet at this
version, 2 wrong usage, 3 a service did not do it, or not for all of them.

Examples:
  tidings user get ada
  tidings user get ada --min-version 2
  tidings user get --handle Ada
  tidings user get ada bob --output jsonl | jq -r .user.displayName";

/// Read one user or several.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// Whom, by id
    #[arg(value_name = "ID", required_unless_present = "handle")]
    ids: Vec<String>,

    /// Whom, by handle, whatever its case
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    handle: Option<String>,

    /// Read at least this version, as your last change returned it; of one user
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    min_version: i64,

    /// Read past all caches
    #[arg(long)]
    strong: bool,

    #[command(flatten)]
    service: Service,
}

/// Reads and prints.
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
        Err(_) if min_version != 0 => Err(Error::VersionOfSeveral),
        Err(ids) => several(&service, &caller, ids, consistency).await,
    }
}

async fn one(service: &Service, caller: &Caller, request: GetUserRequest) -> Result<(), Error> {
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    let answer = caller.call("GetUser", &request, send).await?;
    service.print("GetUserResponse", &answer, || {
        show::user(&answer.user.clone().unwrap_or_default(), answer.read_info.as_ref())
    });
    Ok(())
}

async fn by_handle(service: &Service, caller: &Caller, request: GetUserByHandleRequest) -> Result<(), Error> {
    let send = async |channel, request| UserServiceClient::new(channel).get_user_by_handle(request).await;
    let answer = caller.call("GetUserByHandle", &request, send).await?;
    service.print("GetUserByHandleResponse", &answer, || {
        show::user(&answer.user.clone().unwrap_or_default(), answer.read_info.as_ref())
    });
    Ok(())
}

async fn several(service: &Service, caller: &Caller, ids: Vec<String>, consistency: Consistency) -> Result<(), Error> {
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

/// Reads all of them, in their order, or as many as can be read, and why it is not all. What an answer has no room for is
/// asked for again.
async fn read(
    caller: &Caller,
    ids: &[String],
    consistency: Consistency,
) -> (Vec<BatchGetUsersResult>, Option<tidings_client::Error>) {
    let send = async |channel, request| {
        let answer = UserServiceClient::new(channel).batch_get_users(request).await?;
        if answer.get_ref().results.iter().all(|result| result.outcome() == Outcome::Unavailable) {
            return Err(Status::unavailable("none of the users can be read now"));
        }
        Ok(answer)
    };
    let (mut found, mut failed) = (HashMap::new(), None);
    let mut missing = ids.to_vec();
    while !missing.is_empty() && failed.is_none() {
        let later = missing.split_off(missing.len().min(AT_ONCE));
        let request = BatchGetUsersRequest { ids: missing, consistency: consistency.into() };
        let results = match caller.call("BatchGetUsers", &request, send).await {
            Ok(answer) => answer.results,
            Err(error) => {
                failed = Some(error);
                Vec::new()
            }
        };
        let (unknown, known): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|result| result.outcome() == Outcome::Unavailable);
        found.extend(known.into_iter().map(|result| (result.id.clone(), result)));
        // Those that were not asked for yet go first: others may never be readable.
        missing = later.into_iter().chain(unknown.into_iter().map(|result| result.id)).collect();
    }
    (ids.iter().filter_map(|id| found.get(id).cloned()).collect(), failed)
}
