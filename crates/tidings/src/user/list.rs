//! `tidings user list`.

use std::num::NonZeroUsize;

use tidings_client::Caller;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{ListUsersRequest, User};

use super::{Error, Service, show};
use crate::cli::Output;
use crate::contracts::Contracts;
use crate::out;

/// The most users of one page.
const PAGE: usize = 500;

const MORE: &str = "\
Users are listed by id, or with --handle-prefix by handle; those that are deleted
are left out. It asks for page after page. With jsonl each user is printed as it
comes, as `user import` reads it; a table and json are printed when all have come.
A user that is created or deleted meanwhile may or may not be listed; every other
is listed once.

Examples:
  tidings user list --limit 20
  tidings user list --handle-prefix ad
  tidings user list --output jsonl > users.jsonl";

/// List users, page after page.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// List only those whose handle begins so, whatever its case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    handle_prefix: String,

    /// List at most so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,

    #[command(flatten)]
    service: Service,
}

/// Lists and prints.
pub(super) async fn run(Args { handle_prefix, limit, service }: Args) -> Result<(), Error> {
    let contracts = Contracts::compiled_in();
    let json = |user: &User| contracts.json("tidings.user.v1.User", user);
    let mut pages = Pages::new(service.caller()?, handle_prefix, limit.map_or(usize::MAX, NonZeroUsize::get));
    let mut all = Vec::new();
    while let Some(users) = pages.next().await? {
        match service.output {
            Output::Jsonl if users.iter().all(|user| out::stream(json(user))) => {}
            Output::Jsonl => return Ok(()), // nobody reads any more
            Output::Table | Output::Json => all.extend(users),
        }
    }
    match service.output {
        Output::Table => out::result(show::users(all.iter().map(|user| (user, None)))),
        Output::Json => out::result(Output::Json.json(&all.iter().map(json).collect())),
        Output::Jsonl => {}
    }
    Ok(())
}

/// The pages of a list.
struct Pages {
    caller: Caller,
    handle_prefix: String,
    /// How many are still wanted.
    wanted: usize,
    /// Asks for the next page; `None` after the last.
    token: Option<String>,
}

impl Pages {
    fn new(caller: Caller, handle_prefix: String, wanted: usize) -> Self {
        Self { caller, handle_prefix, wanted, token: Some(String::new()) }
    }

    async fn next(&mut self) -> Result<Option<Vec<User>>, Error> {
        let Some(page_token) = self.token.take().filter(|_| self.wanted > 0) else { return Ok(None) };
        let request = ListUsersRequest {
            handle_prefix: self.handle_prefix.clone(),
            page_size: i32::try_from(self.wanted.min(PAGE)).unwrap_or(0),
            page_token,
        };
        let send = async |channel, request| UserServiceClient::new(channel).list_users(request).await;
        let page = self.caller.call("ListUsers", &request, send).await?;
        self.token = Some(page.next_page_token).filter(|token| !token.is_empty());
        self.wanted = self.wanted.saturating_sub(page.users.len());
        Ok(Some(page.users))
    }
}
