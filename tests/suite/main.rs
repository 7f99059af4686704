//! The suite together: the command as a user runs it, with its services, Postgres and Redis as real processes.

mod interop;
mod main_job;
mod readme;
mod support;
mod up;
