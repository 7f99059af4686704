//! Short forms of requests.

use tidings_proto::user as pb;

/// A user with an id and a handle only.
pub(crate) fn handled(id: &str, handle: &str) -> pb::User {
    pb::User { id: id.to_owned(), handle: handle.to_owned(), ..Default::default() }
}

/// A user with an id and a display name only.
pub(crate) fn named(id: &str, display_name: &str) -> pb::User {
    pb::User { id: id.to_owned(), display_name: display_name.to_owned(), ..Default::default() }
}

/// An update of the display name.
pub(crate) fn renaming(id: &str, display_name: &str) -> pb::UpdateUserRequest {
    changing(named(id, display_name), &["display_name"])
}

/// An update of these fields.
pub(crate) fn changing(user: pb::User, fields: &[&str]) -> pb::UpdateUserRequest {
    let paths = fields.iter().map(ToString::to_string).collect();
    pb::UpdateUserRequest { user: Some(user), update_mask: Some(prost_types::FieldMask { paths }), expected_version: 0 }
}
