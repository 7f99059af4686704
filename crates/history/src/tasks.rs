//! Background tasks, which start and end with the service.

pub mod notifications;
pub mod relay;
