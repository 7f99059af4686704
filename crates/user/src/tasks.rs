//! What runs without being called; started with the service and ended with it.

pub mod compare;
pub mod news;
pub mod relay;
