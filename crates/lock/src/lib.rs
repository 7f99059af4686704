//! The lock service.
