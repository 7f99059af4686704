//! Validation of ListUsers, and its pages.

use prost::Message as _;
use tidings_proto::user::encoded as pb;
use tidings_server::page_token;
use tidings_status::{Fields, Invalid};

use super::{DOMAIN, RESPONSE_BYTES_MAX, handle};
use crate::model::{HandleKey, Listing, User, UserId, UserPage};

const PAGE_MAX: i32 = 500;
const PAGE_DEFAULT: i32 = 100;

/// Kinds of page tokens: the order of the list that a token belongs to.
const BY_ID: u8 = 1;
const BY_HANDLE: u8 = 2;

/// A validated ListUsers.
#[derive(Debug)]
pub struct ListUsers {
    /// Selection, order and start of the users.
    pub listing: Listing,
    /// Limit of users, 1 to 500.
    pub size: usize,
}

/// Validates a request of ListUsers, and converts it into the model.
pub fn list(request: &pb::ListUsersRequest) -> Result<ListUsers, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    let prefix = handle::optional_handle(&mut fields, "handle_prefix", &request.handle_prefix);
    fields.within_range("page_size", &request.page_size, &(0..=PAGE_MAX));
    let mut listing = if prefix.is_empty() {
        Listing::ById { after: None }
    } else {
        Listing::ByHandle { prefix: HandleKey::of(&prefix), after: None }
    };
    if !request.page_token.is_empty() {
        let cursor = parse_token(&listing, &request.page_token);
        fields.require("page_token", cursor.is_some(), "expected a next_page_token of this list");
        match &mut listing {
            Listing::ById { after } => *after = cursor.map(UserId::new),
            Listing::ByHandle { after, .. } => *after = cursor.map(HandleKey::new),
        }
    }
    fields.finish()?;
    let size = if request.page_size == 0 { PAGE_DEFAULT } else { request.page_size };
    Ok(ListUsers { listing, size: usize::try_from(size).unwrap_or_default() })
}

/// Converts a page to the contract's message, cut to the size of a response but with at least one
/// user.
pub fn page(listing: &Listing, page: UserPage) -> pb::ListUsersResponse {
    let mut bytes = 0;
    let all = page.users.len();
    let mut last = None;
    let mut users = Vec::new();
    for found in page.users {
        let cursor = cursor_of(listing, &found);
        let user = super::user(found);
        bytes += user.encoded_len();
        if bytes > RESPONSE_BYTES_MAX && !users.is_empty() {
            break;
        }
        users.push(user);
        last = Some(cursor);
    }
    let more = page.more || users.len() < all;
    let next = last.filter(|_| more).map(|cursor| token(listing, &cursor));
    pb::ListUsersResponse { users, next_page_token: next.unwrap_or_default() }
}

fn cursor_of(listing: &Listing, user: &User) -> String {
    match listing {
        Listing::ById { .. } => user.id.to_string(),
        Listing::ByHandle { .. } => HandleKey::of(&user.profile.handle).into_string(),
    }
}

fn token(listing: &Listing, cursor: &String) -> String {
    let (kind, list) = name(listing);
    page_token::encode(kind, list, cursor)
}

/// Decodes the cursor of a token, which callers may forge; `None` if the token is malformed or of
/// another list, or if the cursor has a NUL, which Postgres refuses.
fn parse_token(listing: &Listing, token: &str) -> Option<String> {
    let (kind, list) = name(listing);
    page_token::decode(kind, list, token).filter(|cursor: &String| !cursor.contains('\0'))
}

fn name(listing: &Listing) -> (u8, &str) {
    match listing {
        Listing::ById { .. } => (BY_ID, ""),
        Listing::ByHandle { prefix, .. } => (BY_HANDLE, prefix.as_str()),
    }
}
