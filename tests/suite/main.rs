//! The suite together: the command as a user runs it, with its services, Postgres and Redis as real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can not go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod away;
mod bench;
mod cancelled;
mod doctor;
mod health;
mod hostile;
mod interop;
mod lost_answers;
mod main_job;
mod readme;
mod reasons;
mod rolling;
mod secured;
mod service;
mod settings;
mod starting;
mod support;
mod telemetry;
mod up;
mod user_cli;
