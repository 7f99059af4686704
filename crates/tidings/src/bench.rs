//! `tidings bench`: how much a service does, and how long its callers wait.
//!
//! `scenarios` says what is called, `ground` with what, over plain connections without our client's repeats, since the
//! service is what is measured; `crate::load` calls and counts; `bar` judges, `report` and `plot` show.

mod bar;
mod ground;
mod plot;
mod progress;
mod report;
mod scenarios;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tidings_client::{Addresses, Malformed};

use self::bar::Bar;
use self::ground::{Ground, Shape};
use self::progress::Progress;
use self::report::Report;
use self::scenarios::Scenario;
use crate::cli::{self, Output};
use crate::load::{self, Call, Fault, Load, Pace};
use crate::{address, credentials, error, out};

/// Callers of an open loop, unless said otherwise: enough that a stall of a second at a thousand calls a second finds one
/// for each call.
const OPEN_IN_FLIGHT: u16 = 1000;
/// Callers of a closed loop, unless said otherwise: enough to keep a service of some cores busy.
const CLOSED_IN_FLIGHT: u16 = 64;

/// Connections, unless said otherwise.
const CONNECTIONS: u16 = 4;

const HOW: &str = "\
How to read it:
  With --rate calls begin at set moments, whatever became of those before (open
  loop), and latency counts from these moments: a stall is seen by every call that
  should have begun meanwhile. This is what users see: state a rate below what the
  service can do, and look at p99. Without it each of --in-flight callers sends its
  next call when its last was answered (closed loop): this finds how much can be
  done, and flatters latencies.

  calls/s are good answers that came in the time that is counted; items/s what they
  did, where a call is a batch. Latencies are of all good answers, and of calls that
  timed out or were never sent, with as long as they were waited for. Refusals are
  counted by code and reason, and not timed. `late` says how many calls began more
  than 10 ms after they should have: too few callers, or too small a machine for the
  generator, which shares it with whatever else runs there.

  A bar (--p99, --min-rate, ...) makes it a question: PASS and exit code 0, or FAIL
  and 1. Any call that fails is a FAIL, unless --max-errors allows for it.

  What it creates stays in the service, under ids that begin with bench-.

Examples:
  tidings bench get-user
  tidings bench append-message --rate 500 --p99 20ms
  tidings bench subscribe --subscribers 500 --rate 100 --plot fanout.svg
  tidings bench get-user list-messages --in-flight 16 --output json
  tidings bench empty --addr https://lock.example:7403 --ca ca.pem";

/// Measure how much a service does and how long its callers wait; or ask whether it keeps up with a stated bar.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Scenarios:\n{}\n{HOW}", scenarios::list()))]
pub(crate) struct Args {
    /// What to call, one after the other; see below
    #[arg(value_name = "SCENARIO", required_unless_present = "list", value_parser = scenarios::find)]
    scenarios: Vec<&'static Scenario>,

    /// List the scenarios, with the methods that each calls
    #[arg(long, conflicts_with = "scenarios")]
    list: bool,

    /// Calls a second, at set moments (open loop); without it, as many as are answered (closed loop)
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// Callers, that is, the most calls under way at once [default: 64; with --rate 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: Option<u16>,

    /// Connections that the callers share
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,

    /// How long is counted
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = cli::duration)]
    time: Duration,

    /// How long is called before that, uncounted
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = cli::duration_or_zero)]
    warm_up: Duration,

    /// Longest time to wait for one answer, e.g. 800ms or 5s; the service is told
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = cli::duration)]
    timeout: Duration,

    /// Where the service is, HOST:PORT or https://HOST:PORT, several instances separated by commas [default: as for
    /// `tidings call`: TIDINGS_USER_ADDR and so on, else 127.0.0.1:7401 to 7404]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<Addresses>,

    /// How to print the result: one table; or an object for each scenario
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Draw latency by percentile into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    bar: Bar,

    #[command(flatten)]
    credentials: credentials::Args,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    /// More than a generator can begin.
    const MOST: f64 = 1e6;
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= MOST => Ok(rate),
        _ => Err("expected calls a second, more than 0 and at most 1000000"),
    }
}

/// Why there is no figure, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An environment variable holds no address.
    #[error(transparent)]
    Address(#[from] Malformed),
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// What a scenario needs could not be made.
    #[error("{scenario} can not begin: {fault} ({addresses})")]
    Prepare {
        /// Which.
        scenario: &'static str,
        /// Why.
        fault: Fault,
        /// Where.
        addresses: Addresses,
    },
    /// Nothing was answered well.
    #[error("{0}: not one call was answered well")]
    Nothing(&'static str),
    /// The drawing can not be written.
    #[error("can not write {}: {cause}", path.display())]
    Plot {
        /// Where to.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The bar was not reached.
    #[error("the bar was not reached: {}", .0.join(", "))]
    Bar(Vec<&'static str>),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::Credentials(_) | Self::Plot { .. } => error::USAGE,
            Self::Prepare { .. } | Self::Nothing(_) => error::SERVICE,
            Self::Bar(_) => error::NO,
        }
    }
}

/// Runs the scenarios, shows what they measured, and judges.
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
        return Err(Error::Nothing(report.scenario.name));
    }
    let failed = reports.iter().filter(|report| report.passed() == Some(false));
    let failed: Vec<_> = failed.map(|report| report.scenario.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Bar(failed)) }
}

/// The names of the scenarios, in the order of `tidings bench --list`.
pub fn names() -> impl Iterator<Item = &'static str> {
    scenarios::SCENARIOS.iter().map(|scenario| scenario.name)
}

/// The service that a scenario calls, e.g. `user`; that of any for one that is not there.
pub fn service(name: &str) -> &'static str {
    scenarios::find(name).map_or(address::USER, Scenario::service).name()
}

/// Gets a scenario ready for so many callers, with sizes and connections as they are unless said otherwise: for those who
/// measure it beside others.
///
/// # Errors
/// What it needs could not be made, or there is no such scenario.
pub async fn prepare(name: &str, addresses: &Addresses, callers: usize) -> Result<Call, Fault> {
    /// Longest time to wait for one answer.
    const TIMEOUT: Duration = Duration::from_secs(10);
    let scenario = scenarios::find(name).map_err(Fault::answer)?;
    let shape = Shape::default();
    let none = credentials::Args::default();
    let connect = |count| ground::connect(addresses, &none, count).map_err(|error| Fault::answer(error.to_string()));
    let ground = Ground {
        connections: connect(CONNECTIONS.into())?,
        listeners: connect(shape.listening_connections())?,
        shape,
        callers,
        timeout: TIMEOUT,
        run: ground::new_run(),
    };
    (scenario.prepare)(Arc::new(ground)).await
}

/// Prepares a scenario and runs it.
async fn measure(scenario: &'static Scenario, args: &Args) -> Result<Report, Error> {
    let addresses = match &args.addr {
        Some(addresses) => addresses.clone(),
        None => scenario.service().addresses()?,
    };
    let load = args.load();
    let ground = Ground {
        connections: ground::connect(&addresses, &args.credentials, args.connections.into())?,
        listeners: ground::connect(&addresses, &args.credentials, args.shape.listening_connections())?,
        shape: args.shape,
        callers: load.in_flight,
        timeout: args.timeout,
        run: ground::new_run(),
    };
    let progress = Progress::new(args.quiet, scenario.name);
    progress.preparing();
    let call = (scenario.prepare)(Arc::new(ground)).await;
    let call = call.map_err(|fault| Error::Prepare { scenario: scenario.name, fault, addresses })?;
    let seen = Arc::default();
    let tally = progress.during(load.warm_up + load.time, &seen, load::run(&load, &call, &seen)).await;
    let verdicts = args.bar.judge(&tally);
    Ok(Report { scenario, load, connections: args.connections, shape: args.shape, tally, verdicts })
}

impl Args {
    fn load(&self) -> Load {
        let usual = if self.rate.is_some() { OPEN_IN_FLIGHT } else { CLOSED_IN_FLIGHT };
        Load {
            pace: self.rate.map_or(Pace::Closed, Pace::Rate),
            in_flight: self.in_flight.unwrap_or(usual).into(),
            warm_up: self.warm_up,
            time: self.time,
            grace: self.timeout,
        }
    }
}
