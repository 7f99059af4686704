//! A load generator free of coordinated omission, and scenarios that call every method of the
//! services.
//!
//! In an *open loop* each call has an intended start time, independent of earlier responses, and
//! its latency is measured from then. If the server stalls for a second, every call due in that
//! second shows it. A generator that waits for a response before the next call would see the stall
//! once ("coordinated omission", Gil Tene). In a *closed loop* each caller sends its next call
//! after the previous response: that measures capacity, and understates latency.
//!
//! A call is any function that returns a future. The calls that measure Tidings are the
//! [`SCENARIOS`]: `tidings bench` runs them against one service, `make bench` compares them with
//! other systems.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use tidings_load::{BenchCall, LoadSpec, Pace};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let call: BenchCall = Arc::new(|_slot| Box::pin(async { Ok(1) }));
//! let load = LoadSpec {
//!     pace: Pace::Rate(100.0),
//!     in_flight: 10,
//!     warm_up: Duration::ZERO,
//!     time: Duration::from_millis(200),
//!     grace: Duration::from_secs(1),
//! };
//!
//! let tally = tidings_load::run(&load, &call, &Arc::default()).await;
//!
//! assert_eq!((tally.calls(), tally.failed()), (20, 0));
//! println!("p99 {:?}", tally.latency.percentile(99.0));
//! # }
//! ```
//!
//! Reading order: `spec` is the load of a run and `call` the call that it repeats; `schedule`
//! determines when calls start, `generator` starts them, `tally` counts their outcomes, `fanout`
//! measures deliveries to subscribers. `context` has the connections and names of a scenario, and
//! `scenarios` its calls, which have none of the retries of the client, because the service is
//! measured.

mod call;
mod context;
mod fanout;
mod generator;
mod scenarios;
mod schedule;
mod spec;
mod tally;

pub use call::{BenchCall, CallFailure, CallSlot};
pub use context::{ScenarioSettings, WorkloadShape};
pub use fanout::Fanout;
pub use generator::{LiveCounts, run};
pub use scenarios::{SCENARIOS, Scenario};
pub use spec::{LoadSpec, Pace};
pub use tally::{Latency, RunTally};
