//! Lanes to a real Redis: killed, stopped, restarted, emptied of its scripts.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod away;
mod lanes;
mod numbers;
mod scripts;
mod subscriber;
mod support;
