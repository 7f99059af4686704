//! Background tasks, started with the service and ended with it.

pub mod compare;
pub mod notifications;
pub mod relay;
