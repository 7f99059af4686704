//! What is promised when things fail, shown under load.
//!
//! Each drill starts an installation of its own (two instances of each service as real processes, a Postgres, a Redis), measures
//! what it can do, offers half of that in an open loop, lets a fault happen in the middle, and then accounts for every call:
//! nothing that was acknowledged is lost, doubled, reordered, or goes back, and things are as they were within the time that is
//! promised. `make test` runs the short form, `make faults` the long one; the table is in `drills.md` and `drills.json` in the
//! target directory.

#![expect(clippy::print_stderr, reason = "of the suite's means, which say what they skip")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a drill that can not go on has failed")]

mod drill;
mod drills;
mod load;
mod report;
#[expect(dead_code, reason = "the suite uses more of it")]
#[path = "../suite/service.rs"]
mod service;
mod stage;
#[expect(dead_code, reason = "the suite uses more of it")]
#[path = "../suite/support.rs"]
mod support;
mod work;
