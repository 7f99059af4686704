//! The check of GetUserByHandle, and of handles.

use tidings_proto::user::encoded as pb;
use tidings_status::{Fields, Invalid};

use super::{DOMAIN, consistency};
use crate::model::{HANDLE_CHARS_MAX, HandleKey, compose};

/// A checked GetUserByHandle.
#[derive(Debug)]
pub struct GetByHandle {
    /// Whose handle.
    pub handle: HandleKey,
    /// At least this version.
    pub min_version: i64,
    /// Past the cache.
    pub strong: bool,
}

/// Checks GetUserByHandle.
pub fn get_by_handle(request: &pb::GetUserByHandleRequest) -> Result<GetByHandle, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    let handle = compose(&request.handle);
    fields.require("handle", handle.is_some(), expected());
    fields.not_negative("min_version", request.min_version);
    let strong = consistency(&mut fields, request.consistency);
    fields.finish()?;
    let handle = HandleKey::of(&handle.unwrap_or_default());
    Ok(GetByHandle { handle, min_version: request.min_version, strong })
}

/// Expects a handle, the beginning of one, or nothing; gives it as it is kept.
pub(super) fn optional_handle(fields: &mut Fields, field: &str, given: &str) -> String {
    let handle = if given.is_empty() { Some(given.into()) } else { compose(given) };
    fields.require(field, handle.is_some(), format!("{}, or nothing", expected()));
    handle.unwrap_or_default().into_owned()
}

fn expected() -> String {
    format!("expected 1 to {HANDLE_CHARS_MAX} letters, marks and digits of any script and ._-")
}
