//! What is asked for, in few words.

use tidings_proto::user as pb;

/// A user of whom only the handle is known.
pub(crate) fn handled(id: &str, handle: &str) -> pb::User {
    pb::User { id: id.to_owned(), handle: handle.to_owned(), ..Default::default() }
}

/// A user of whom only the name is known.
pub(crate) fn named(id: &str, display_name: &str) -> pb::User {
    pb::User { id: id.to_owned(), display_name: display_name.to_owned(), ..Default::default() }
}

/// A change of the name that is shown.
pub(crate) fn renaming(id: &str, display_name: &str) -> pb::UpdateUserRequest {
    changing(named(id, display_name), &["display_name"])
}

/// A change of the named fields.
pub(crate) fn changing(user: pb::User, fields: &[&str]) -> pb::UpdateUserRequest {
    let paths = fields.iter().map(ToString::to_string).collect();
    pb::UpdateUserRequest { user: Some(user), update_mask: Some(prost_types::FieldMask { paths }), expected_version: 0 }
}
