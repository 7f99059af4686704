//! `tidings bench`: measures throughput and latency of a service.
//!
//! The crate `tidings-load` has the scenarios and generates the load. `scenarios` and `shape` are
//! their flags, `thresholds` judges the results, `report` and `plot` render them.

mod plot;
mod progress;
mod report;
mod scenarios;
mod shape;
mod thresholds;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tidings_client::{Addresses, InvalidAddress};
use tidings_load::{CallFailure, LoadSpec, Pace, Scenario, ScenarioSettings};

use self::progress::ScenarioProgress;
use self::report::ScenarioReport;
use self::shape::ShapeArgs;
use self::thresholds::Thresholds;
use crate::address::{self, KnownService};
use crate::args::{self, Output};
use crate::{credentials, exit, out};

/// Default number of callers of an open loop: one for each call that is due in a stall of a second
/// at 1000 calls/s.
const OPEN_LOOP_CALLERS: u16 = 1000;
/// Default number of callers of a closed loop: enough to saturate a service on a few cores.
const CLOSED_LOOP_CALLERS: u16 = 64;

const HELP: &str = "\
Open and closed loop:
  With --rate each call has an intended start time, independent of earlier responses
  (open loop), and its latency counts from then: every call that is due in a stall
  shows it. This is the latency that users see. Choose a rate below the capacity of
  the service, and look at p99. Without --rate each of --in-flight callers sends its
  next call after the previous response (closed loop). This measures capacity, and
  understates latency.

Columns:
  calls/s   successful calls per second
  items/s   items of these calls per second: more than calls/s for batches
  p50 ...   latencies of successful calls, and of calls that timed out or were never
            sent, with the time waited; other failures are not in the latencies
  errors    failed calls; listed below the table by code and reason
  late      calls that started more than 10 ms after their intended start time: too
            few callers, or not enough CPU for the load generator

Thresholds:
  With --p50, --p99, --p99.9, --max, --min-rate or --max-errors the result is PASS
  with exit code 0, or FAIL with exit code 1. Any failed call is a FAIL unless
  --max-errors allows it.

The data that a run creates stays in the service, under ids that begin with bench-.

Examples:
  tidings bench get-user
  tidings bench append-message --rate 500 --p99 20ms
  tidings bench subscribe --subscribers 500 --rate 100 --plot fanout.svg
  tidings bench get-user list-messages --in-flight 16 --output json
  tidings bench empty --addr https://lock.example:7403 --ca ca.pem";

/// Measure throughput and latency of a service, and check them against thresholds.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Scenarios:\n{}\n{HELP}", scenarios::list()))]
pub(crate) struct Args {
    /// Scenarios to run, one after the other; see below
    #[arg(value_name = "SCENARIO", required_unless_present = "list", value_parser = scenarios::parse)]
    scenarios: Vec<&'static Scenario>,

    /// List the scenarios and the methods that each calls
    #[arg(long, conflicts_with = "scenarios")]
    list: bool,

    /// Calls per second, evenly spaced (open loop) [default: a closed loop]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// Number of callers, each with one call in flight [default: 64; with --rate 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: Option<u16>,

    /// Connections that the callers share
    #[arg(long, value_name = "N", default_value_t = ScenarioSettings::CONNECTIONS, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,

    /// Duration of the measurement
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    time: Duration,

    /// Duration of the unmeasured calls before it
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration_or_zero)]
    warm_up: Duration,

    /// Longest wait for one response, e.g. 800ms or 5s; sent to the service as the call's deadline
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    timeout: Duration,

    /// Address of the service, HOST:PORT or https://HOST:PORT; several separated by commas
    /// [default: as for `tidings call`, TIDINGS_USER_ADDR etc., else 127.0.0.1:7401 to 7404]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<Addresses>,

    /// Output format: one table, or one JSON object per scenario
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Write a plot of latency by percentile to this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    shape: ShapeArgs,

    #[command(flatten)]
    thresholds: Thresholds,

    #[command(flatten)]
    credentials: credentials::Args,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    /// More calls per second than the generator can start.
    const MAX: f64 = 1e6;
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= MAX => Ok(rate),
        _ => Err("expected calls per second, more than 0 and at most 1000000"),
    }
}

/// Error of `tidings bench`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address in an environment variable is malformed.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// The preparation of a scenario failed.
    #[error("{scenario}: preparation failed: {failure} ({addresses})")]
    Prepare { scenario: &'static str, failure: CallFailure, addresses: Addresses },
    /// Every call of a scenario failed.
    #[error("{0}: all calls failed")]
    AllFailed(&'static str),
    /// The plot cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Plot { path: PathBuf, cause: io::Error },
    /// The results of these scenarios miss a threshold.
    #[error("thresholds missed: {}", .0.join(", "))]
    Thresholds(Vec<&'static str>),
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::Credentials(_) | Self::Plot { .. } => exit::USAGE,
            Self::Prepare { .. } | Self::AllFailed(_) => exit::SERVICE,
            Self::Thresholds(_) => exit::NO,
        }
    }
}

/// Runs the scenarios, prints the results, and checks the thresholds.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    if args.list {
        out::result(scenarios::methods());
        return Ok(());
    }
    let mut reports = Vec::new();
    for scenario in &args.scenarios {
        let report = measure(scenario, &args).await?;
        if args.output != Output::Table {
            out::result(args.output.json(&report.json()));
        }
        reports.push(report);
    }
    if args.output == Output::Table {
        out::result(report::table(&reports));
    }
    if let Some(path) = &args.plot {
        let written = fs::write(path, plot::svg(&reports));
        written.map_err(|cause| Error::Plot { path: path.clone(), cause })?;
    }
    if let Some(report) = reports.iter().find(|report| report.tally.failed() == report.tally.calls()) {
        return Err(Error::AllFailed(report.scenario.name));
    }
    let failed = reports.iter().filter(|report| report.passed() == Some(false));
    let failed: Vec<_> = failed.map(|report| report.scenario.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Thresholds(failed)) }
}

/// Prepares a scenario and runs it.
async fn measure(scenario: &'static Scenario, args: &Args) -> Result<ScenarioReport, Error> {
    let addresses = match &args.addr {
        Some(addresses) => addresses.clone(),
        None => KnownService::named(scenario.service()).unwrap_or(address::USER).addresses()?,
    };
    let load = args.load();
    let settings = ScenarioSettings {
        credentials: args.credentials.open(&addresses)?,
        addresses,
        connections: args.connections.into(),
        shape: args.shape.into(),
        callers: load.in_flight,
        timeout: args.timeout,
    };
    let progress = ScenarioProgress::new(args.quiet, scenario.name);
    progress.preparing();
    let call = scenario.prepare(&settings).await;
    let ScenarioSettings { addresses, shape, .. } = settings;
    let call = call.map_err(|failure| Error::Prepare { scenario: scenario.name, failure, addresses })?;
    let counts = Arc::default();
    let run = tidings_load::run(&load, &call, &counts);
    let tally = progress.during(load.warm_up + load.time, &counts, run).await;
    let verdicts = args.thresholds.judge(&tally);
    Ok(ScenarioReport { scenario, load, connections: args.connections, shape, tally, verdicts })
}

impl Args {
    fn load(&self) -> LoadSpec {
        let default_callers = if self.rate.is_some() { OPEN_LOOP_CALLERS } else { CLOSED_LOOP_CALLERS };
        LoadSpec {
            pace: self.rate.map_or(Pace::Closed, Pace::Rate),
            in_flight: self.in_flight.unwrap_or(default_callers).into(),
            warm_up: self.warm_up,
            time: self.time,
            grace: self.timeout,
        }
    }
}
