//! End-to-end tests: commands, services, Postgres and Redis run as real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]
#![expect(clippy::print_stderr, reason = "tests report that they are skipped")]

mod bench;
mod cancelled;
mod client_examples;
mod doctor;
mod health;
mod hostile;
mod interop;
mod least_permissions;
mod lost_responses;
mod migrate;
mod outages;
mod readme;
mod reasons;
mod replay;
mod rolling;
mod rotation;
mod secured;
mod service;
mod settings;
mod startup;
mod support;
mod telemetry;
mod unread_stderr;
mod up;
mod user_cli;
