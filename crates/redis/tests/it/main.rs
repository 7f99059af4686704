//! Lanes, pub/sub and tracking against a real Redis that is killed, paused, restarted or flushed.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::print_stderr, reason = "the cancellation test prints its figures")]

mod breaker;
mod cancels;
mod cost;
mod example;
mod lanes;
mod metrics;
mod permissions;
mod scripts;
mod subscriber;
mod support;
mod tracker;
mod unavailable;
mod unusable;
