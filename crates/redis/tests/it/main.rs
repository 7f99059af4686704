//! Lanes to a real Redis: killed, stopped, restarted, emptied of its scripts.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::print_stderr, reason = "figures are told")]

mod away;
mod breaker;
mod cancels;
mod cost;
mod lanes;
mod numbers;
mod scripts;
mod subscriber;
mod support;
mod tracker;
