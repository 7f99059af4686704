//! The broadcast service.
