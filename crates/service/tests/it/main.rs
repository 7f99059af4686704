//! Tests of the life of a service that need a process of their own.

mod signal;
