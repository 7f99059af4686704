//! The drills. Each adds a row per service to the report.

mod instances;
mod overload;
mod postgres;
mod redis;
mod seeded;

use std::time::Duration;

/// Per service, the longest time after a fault in which its calls may fail; `None` if none may.
type RecoveryTimes = [(&'static str, Option<Duration>); 4];
