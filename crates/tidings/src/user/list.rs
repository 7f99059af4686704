//! `tidings user list`: lists users.

use std::num::NonZeroUsize;

use tidings_client::Caller;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{ListUsersRequest, User};

use super::error::Error;
use super::service::UserServiceArgs;
use super::show;
use crate::args::Output;
use crate::contracts::Contracts;
use crate::out;

/// The largest page that the service returns.
const PAGE_SIZE: usize = 500;

const MORE: &str = "\
Users are sorted by id, or with --handle-prefix by handle; deleted users are left
out. With jsonl each page is printed as it arrives, in the format that `user import`
reads; table and json are printed after the last page. Every user that exists
throughout the listing is listed once, with --handle-prefix only if its handle stays
the same. Users created, deleted or renamed meanwhile may be missing, and with
--handle-prefix a renamed user may be listed once per handle.

Examples:
  tidings user list --limit 20
  tidings user list --handle-prefix ad
  tidings user list --output jsonl > users.jsonl";

/// List users, page after page.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// List only users whose handle begins with TEXT, without regard to case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    handle_prefix: String,

    /// List at most N users [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,

    #[command(flatten)]
    service: UserServiceArgs,
}

/// Lists the users and prints them.
pub(super) async fn run(Args { handle_prefix, limit, service }: Args) -> Result<(), Error> {
    let contracts = Contracts::compiled_in();
    let json = |user: &User| contracts.json("tidings.user.v1.User", user);
    let mut pages = Pages::new(service.caller()?, handle_prefix, limit.map_or(usize::MAX, NonZeroUsize::get));
    let mut all = Vec::new();
    while let Some(users) = pages.next().await? {
        match service.output {
            Output::Jsonl if users.iter().all(|user| out::stream(json(user))) => {}
            Output::Jsonl => return Ok(()), // standard output is closed
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

/// An iterator over the pages of a listing.
struct Pages {
    caller: Caller,
    handle_prefix: String,
    /// Users that may still be returned before `--limit` is reached.
    remaining: usize,
    /// Token of the next page: empty for the first page, `None` after the last.
    token: Option<String>,
}

impl Pages {
    fn new(caller: Caller, handle_prefix: String, remaining: usize) -> Self {
        Self { caller, handle_prefix, remaining, token: Some(String::new()) }
    }

    async fn next(&mut self) -> Result<Option<Vec<User>>, Error> {
        let Some(page_token) = self.token.take().filter(|_| self.remaining > 0) else { return Ok(None) };
        let request = ListUsersRequest {
            handle_prefix: self.handle_prefix.clone(),
            page_size: i32::try_from(self.remaining.min(PAGE_SIZE)).unwrap_or(0),
            page_token,
        };
        let send = async |channel, request| UserServiceClient::new(channel).list_users(request).await;
        let page = self.caller.call("ListUsers", &request, send).await?;
        self.token = Some(page.next_page_token).filter(|token| !token.is_empty());
        self.remaining = self.remaining.saturating_sub(page.users.len());
        Ok(Some(page.users))
    }
}
