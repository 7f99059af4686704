//! Reads everything back and compares it with the plan.

pub(super) mod authors;
pub(super) mod conversations;
pub(super) mod users;
