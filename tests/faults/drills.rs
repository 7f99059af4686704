//! The drills. What each must show is a line of its own in the report.

mod instances;
mod overload;
mod postgres;
mod redis;
mod seeded;

use std::time::Duration;

/// How long after a fault a service may go on refusing calls; nothing if it must refuse none.
type Recovery = [(&'static str, Option<Duration>); 4];
