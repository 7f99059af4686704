//! Reads everything back and compares it with what was sent.

pub(super) mod authors;
pub(super) mod conversations;
pub(super) mod users;
