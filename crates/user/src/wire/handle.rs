//! The check of GetUserByHandle, and of handles.

use tidings_proto::user as pb;
use tidings_status::{Fields, Invalid};

use super::{DOMAIN, consistency};
use crate::model::HandleKey;

const HANDLE_MAX: usize = 32;

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
    let handle = HandleKey::of(&request.handle);
    fields.require("handle", is_handle(&request.handle), expected());
    fields.not_negative("min_version", request.min_version);
    let strong = consistency(&mut fields, request.consistency);
    fields.finish()?;
    Ok(GetByHandle { handle, min_version: request.min_version, strong })
}

/// Expects a handle, the beginning of one, or nothing.
pub(super) fn optional_handle(fields: &mut Fields, field: &str, value: &str) {
    fields.require(field, value.is_empty() || is_handle(value), format!("{}, or nothing", expected()));
}

fn is_handle(value: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=HANDLE_MAX).contains(&value.len()) && value.bytes().all(legal)
}

fn expected() -> String {
    format!("expected 1 to {HANDLE_MAX} of [A-Za-z0-9._-]")
}
