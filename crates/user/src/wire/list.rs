//! The check of ListUsers, and its pages.

use prost::Message as _;
use tidings_proto::user::encoded as pb;
use tidings_server::page_token;
use tidings_status::{Fields, Invalid};

use super::{ANSWER_BYTES_MAX, DOMAIN, handle};
use crate::model::{HandleKey, Listing, Page, User};

const PAGE_MAX: i32 = 500;
const PAGE_DEFAULT: i32 = 100;

/// Kinds of page tokens.
const BY_ID: u8 = 1;
const BY_HANDLE: u8 = 2;

/// A checked ListUsers.
#[derive(Debug)]
pub struct List {
    /// Which users.
    pub listing: Listing,
    /// After which place: an id, or the key of a handle. Empty: from the first.
    pub after: String,
    /// At most so many.
    pub size: usize,
}

/// Checks ListUsers.
pub fn list(request: &pb::ListUsersRequest) -> Result<List, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    let prefix = handle::optional_handle(&mut fields, "handle_prefix", &request.handle_prefix);
    fields.within_range("page_size", &request.page_size, &(0..=PAGE_MAX));
    let listing = if prefix.is_empty() { Listing::ById } else { Listing::ByHandle(HandleKey::of(&prefix)) };
    let after = if request.page_token.is_empty() { Some(String::new()) } else { place(&listing, &request.page_token) };
    fields.require("page_token", after.is_some(), "expected a next_page_token of this list");
    fields.finish()?;
    let size = if request.page_size == 0 { PAGE_DEFAULT } else { request.page_size };
    Ok(List { listing, after: after.unwrap_or_default(), size: usize::try_from(size).unwrap_or_default() })
}

/// A page as the contract has it, cut to what clients can read, but for one user.
pub fn page(listing: &Listing, page: Page) -> pb::ListUsersResponse {
    let mut bytes = 0;
    let all = page.users.len();
    let mut last = None;
    let mut users = Vec::new();
    for found in page.users {
        let place = place_of(listing, &found);
        let user = super::user(found);
        bytes += user.encoded_len();
        if bytes > ANSWER_BYTES_MAX && !users.is_empty() {
            break;
        }
        users.push(user);
        last = Some(place);
    }
    let more = page.more || users.len() < all;
    let next = last.filter(|_| more).map(|place| token(listing, &place));
    pb::ListUsersResponse { users, next_page_token: next.unwrap_or_default() }
}

fn place_of(listing: &Listing, user: &User) -> String {
    match listing {
        Listing::ById => user.id.to_string(),
        Listing::ByHandle(_) => HandleKey::of(&user.profile.handle).into_string(),
    }
}

fn token(listing: &Listing, place: &String) -> String {
    let (kind, list) = name(listing);
    page_token::encode(kind, list, place)
}

/// What a token says; only what Postgres can compare with, whoever made it.
fn place(listing: &Listing, token: &str) -> Option<String> {
    let (kind, list) = name(listing);
    page_token::decode(kind, list, token).filter(|place: &String| !place.contains('\0'))
}

fn name(listing: &Listing) -> (u8, &str) {
    match listing {
        Listing::ById => (BY_ID, ""),
        Listing::ByHandle(prefix) => (BY_HANDLE, prefix.as_str()),
    }
}
