//! Validation of GetUserByHandle, and of handles.

use tidings_proto::user::encoded as pb;
use tidings_status::{Fields, Invalid};

use super::{DOMAIN, consistency};
use crate::model::{Consistency, HANDLE_CHARS_MAX, HandleKey, compose};

/// A validated GetUserByHandle.
#[derive(Debug)]
pub struct GetUserByHandle {
    /// Key of the requested handle.
    pub handle: HandleKey,
    /// Lowest acceptable version; 0 means any.
    pub min_version: i64,
    /// Consistency of the read.
    pub consistency: Consistency,
}

/// Validates a request of GetUserByHandle, and converts it into the model.
pub fn get_by_handle(request: &pb::GetUserByHandleRequest) -> Result<GetUserByHandle, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    let handle = compose(&request.handle);
    fields.require("handle", handle.is_some(), expected());
    fields.not_negative("min_version", request.min_version);
    let consistency = consistency(&mut fields, request.consistency);
    fields.finish()?;
    let handle = HandleKey::of(&handle.unwrap_or_default());
    Ok(GetUserByHandle { handle, min_version: request.min_version, consistency })
}

/// Validates a handle, or a prefix of one, that may be empty; returns it composed.
pub(super) fn optional_handle(fields: &mut Fields, field: &str, given: &str) -> String {
    let handle = if given.is_empty() { Some(given.into()) } else { compose(given) };
    fields.require(field, handle.is_some(), format!("{}, or nothing", expected()));
    handle.unwrap_or_default().into_owned()
}

fn expected() -> String {
    format!("expected 1 to {HANDLE_CHARS_MAX} letters, marks and digits of any script and ._-")
}
