//! Fault drills: the promises of the services under load while something fails.
//!
//! Each drill starts an installation of its own: two instances of each service as real processes,
//! a Postgres and a Redis. It offers a load in an open loop, injects a fault in the middle, and
//! then checks the ledger of every call: nothing acknowledged is lost, duplicated, reordered or
//! reverted, and calls succeed again within the promised time.
//!
//! `make test` runs the short form with a small fixed load. `make faults` runs the long form at
//! half of the measured capacity. Both write their table to `drills.md` and `drills.json` in the
//! target directory.

#![expect(clippy::print_stderr, reason = "the helpers of the suite report what they skip")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a drill that cannot go on has failed")]

mod drill;
mod drills;
mod installation;
mod load;
mod report;
#[expect(dead_code, reason = "the suite uses more of it")]
#[path = "../suite/service.rs"]
mod service;
#[expect(dead_code, reason = "the suite uses more of it")]
#[path = "../suite/support.rs"]
mod support;
mod workload;
