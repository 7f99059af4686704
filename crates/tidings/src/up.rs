//! `tidings up`: a complete private installation on this machine while the command runs.
//!
//! Starts a private Postgres and Redis (`tidings-devstack`), and one child process of this program
//! for each service, so that each can be killed alone. A process that exits is restarted with
//! backoff; when the command ends, every process ends.

mod backoff;
mod banner;
mod children;
pub(crate) mod error;
mod stop_signals;

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tidings_devstack::{Devstack, Options};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{interval, sleep};

use self::backoff::RestartBackoff;
use self::children::{ChildService, ChildServices, ServiceAddress};
use self::error::Error;
use self::stop_signals::StopSignals;
use crate::out;

/// Interval between two checks that every process runs.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The services and their default ports.
const SERVICES: [(&str, u16); 4] = [("user", 7401), ("history", 7402), ("lock", 7403), ("broadcast", 7404)];

/// Offset from the port of a service to the port of its metrics.
const METRICS_PORT_OFFSET: u16 = 2000;

/// Run a complete installation on this machine: Postgres, Redis and all services, until Ctrl-C
///
/// Listens on 127.0.0.1 only, without TLS and tokens: for development and demonstration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the data and logs
    #[arg(long, value_name = "DIR", default_value = ".tidings")]
    dir: PathBuf,

    /// Delete the data of earlier runs first
    #[arg(long)]
    fresh: bool,

    /// Add N to every port, to run several installations on one machine
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    port_offset: u16,

    /// Use a temporary directory and free ports; data and logs are deleted when the command ends
    #[arg(long, conflicts_with_all = ["dir", "fresh", "port_offset"])]
    temporary: bool,

    /// Run COMMAND when everything is ready, then stop everything and exit with its exit code;
    /// TIDINGS_USER_ADDR, TIDINGS_HISTORY_ADDR, TIDINGS_LOCK_ADDR and TIDINGS_BROADCAST_ADDR hold
    /// the addresses of the services
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Starts everything, prints a summary, and keeps everything running until a signal or the end of
/// the command.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut stop = StopSignals::new()?;
    let addresses = addresses(&args).await?;
    let options = if args.temporary {
        out::note("starting postgres and redis ...");
        Options::temporary()
    } else {
        out::note(format_args!("starting postgres and redis in {} ...", args.dir.display()));
        Options { fresh: args.fresh, ..Options::kept(&args.dir) }
    };
    let stack = tokio::select! {
        stack = Devstack::start(options) => stack?,
        () = stop.received() => return Ok(()),
    };
    let outcome = run_services(&stack, &addresses, &args, &mut stop).await;
    stack.stop().await;
    outcome
}

/// Chooses the listen address of each service and checks that its port is free.
async fn addresses(args: &Args) -> Result<Vec<ServiceAddress>, Error> {
    let mut addresses = Vec::new();
    for (name, port) in SERVICES {
        let port = if args.temporary { 0 } else { port + args.port_offset };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let address = listener.and_then(|listener| listener.local_addr());
        let reason = |error: io::Error| Error::Port { port, service: name, reason: error.kind() };
        addresses.push((name, address.map_err(reason)?));
    }
    Ok(addresses)
}

/// Starts the services on a running stack, and keeps everything running until the command ends or a
/// signal arrives.
async fn run_services(
    stack: &Devstack,
    addresses: &[ServiceAddress],
    args: &Args,
    stop: &mut StopSignals,
) -> Result<(), Error> {
    for (name, _) in addresses {
        stack.postgres().create_database(&format!("tidings_{name}")).await?;
    }
    let command = &args.command[..];
    let metrics = (!args.temporary).then_some(METRICS_PORT_OFFSET);
    out::note("starting the services ...");
    let mut services = ChildServices::start(stack, addresses, metrics)?;
    let running = async {
        services.ready().await?;
        if command.is_empty() {
            out::result(banner::banner(addresses, stack, metrics));
        }
        tokio::select! {
            () = supervise(stack, &mut services) => Ok(()),
            outcome = run_command(command, addresses) => outcome,
        }
    };
    let outcome = tokio::select! {
        outcome = running => outcome,
        () = stop.received() => if command.is_empty() { Ok(()) } else { Err(Error::Interrupted) },
    };
    out::note("stopping ...");
    services.stop(stop).await;
    outcome
}

/// Runs the command to its end; without a command, waits indefinitely.
async fn run_command(command: &[OsString], addresses: &[ServiceAddress]) -> Result<(), Error> {
    let Some((program, arguments)) = command.split_first() else {
        return std::future::pending().await;
    };
    let variable =
        |(name, address): &ServiceAddress| (format!("TIDINGS_{}_ADDR", name.to_uppercase()), address.to_string());
    let status = Command::new(program)
        .args(arguments)
        .envs(addresses.iter().map(variable))
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|cause| Error::System { action: "run the command", cause })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: program.to_string_lossy().into_owned(), status })
}

/// Restarts every process that exits, indefinitely, and reports each restart.
async fn supervise(stack: &Devstack, services: &mut ChildServices) {
    let mut checks = interval(CHECK_INTERVAL);
    let mut backoff = [RestartBackoff::default(), RestartBackoff::default()];
    loop {
        checks.tick().await;
        if !stack.postgres().running() {
            backoff[0].wait("postgres").await;
            report("postgres", stack.postgres().start().await);
        }
        if !stack.redis().running() {
            backoff[1].wait("redis").await;
            report("redis", stack.redis().start().await);
        }
        for service in services.iter_mut() {
            restart_if_exited(service).await;
        }
    }
}

async fn restart_if_exited(service: &mut ChildService) {
    if let Some(status) = service.exit_status() {
        out::note(format_args!("{} exited ({status}), restarting ...", service.name()));
        sleep(service.restart_delay()).await;
        if let Err(error) = service.start() {
            out::note(error);
        }
    }
}

fn report(server: &str, started: Result<(), tidings_devstack::Error>) {
    match started {
        Ok(()) => out::note(format_args!("{server} restarted")),
        Err(error) => out::note(error), // the next check retries
    }
}
