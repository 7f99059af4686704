//! What runs without being called; started with the service and ended with it.

pub mod news;
pub mod reread;
pub mod sweep;
