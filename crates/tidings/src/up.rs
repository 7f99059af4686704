//! `tidings up`: the whole of Tidings on this machine, for as long as the command runs.
//!
//! A private Postgres and Redis (`tidings-devstack`), and one child of this very program for each service, so that each
//! can be killed alone. Whatever dies is started again after a moment; when the command ends, all of it ends.

mod card;
mod service;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tidings_devstack::{Devstack, Options};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

use self::service::{Service, Services};
use crate::error;
use crate::out;

/// How often we look whether everything still runs.
const LOOK: Duration = Duration::from_millis(200);
/// The pause before something that died is started again; it doubles while it keeps dying.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a shell says that a command ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// A service and where it listens.
type Place = (&'static str, SocketAddr);

/// The services and their ports.
const SERVICES: [(&str, u16); 4] = [("user", 7401), ("history", 7402), ("lock", 7403), ("broadcast", 7404)];

/// How far the port of a service's metrics is above its own.
const METRICS: u16 = 2000;

/// Start everything on this machine: Postgres, Redis and the services; stop it with Ctrl-C.
///
/// Listens on 127.0.0.1 only, without TLS and tokens: for development and demonstration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the data and logs are kept
    #[arg(long, value_name = "DIR", default_value = ".tidings")]
    dir: PathBuf,

    /// Forget the data of earlier starts
    #[arg(long)]
    fresh: bool,

    /// Added to every port, so that several can run side by side
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    port_offset: u16,

    /// Keep nothing, and take any free ports: data and logs go when the command ends
    #[arg(long, conflicts_with_all = ["dir", "fresh", "port_offset"])]
    temporary: bool,

    /// Run this when everything is up, stop everything when it ends, and end as it did; it finds the services by
    /// TIDINGS_USER_ADDR, TIDINGS_HISTORY_ADDR, TIDINGS_LOCK_ADDR and TIDINGS_BROADCAST_ADDR
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why it is not up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody else listens on a port.
    #[error(
        "port {port} ({service}) is taken ({reason}): stop what uses it, or choose other ports, e.g. --port-offset 100"
    )]
    Port { port: u16, service: &'static str, reason: io::ErrorKind },
    /// Postgres or Redis did not start.
    #[error(transparent)]
    Stack(#[from] tidings_devstack::Error),
    /// A service did not start.
    #[error("{service} did not start: {reason}; its log is {}", log.display())]
    Service { service: &'static str, reason: String, log: PathBuf },
    /// The operating system refused.
    #[error("can not {action}: {cause}")]
    System { action: &'static str, cause: io::Error },
    /// We were told to stop while the command ran.
    #[error("stopped before the command ended")]
    Interrupted,
    /// The command that was to be run did not end well.
    #[error("{command} ended: {status}")]
    Command { command: String, status: ExitStatus },
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command { status, .. } => {
                status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(error::SERVICE)
            }
            Self::Interrupted => INTERRUPTED,
            _ => error::SERVICE,
        }
    }
}

/// Starts everything, tells how to use it, and keeps it running until it is told to stop.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut stop = Stop::new()?;
    let places = places(&args).await?;
    let options = if args.temporary {
        out::note("starting postgres and redis ...");
        Options::temporary()
    } else {
        out::note(format_args!("starting postgres and redis in {} ...", args.dir.display()));
        Options { fresh: args.fresh, ..Options::kept(&args.dir) }
    };
    let stack = tokio::select! {
        stack = Devstack::start(options) => stack?,
        () = stop.asked() => return Ok(()),
    };
    let kept = keep_up(&stack, &places, &args, &mut stop).await;
    stack.stop().await;
    kept
}

/// Where the services will listen; nobody else does.
async fn places(args: &Args) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    for (name, port) in SERVICES {
        let port = if args.temporary { 0 } else { port + args.port_offset };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let address = listener.and_then(|listener| listener.local_addr());
        let reason = |error: io::Error| Error::Port { port, service: name, reason: error.kind() };
        places.push((name, address.map_err(reason)?));
    }
    Ok(places)
}

/// Starts the services on a running stack, and keeps everything running until the command ends or we are to stop.
async fn keep_up(stack: &Devstack, places: &[Place], args: &Args, stop: &mut Stop) -> Result<(), Error> {
    for (name, _) in places {
        stack.postgres().create_database(&format!("tidings_{name}")).await?;
    }
    let command = &args.command[..];
    let metrics = (!args.temporary).then_some(METRICS);
    out::note("starting the services ...");
    let mut services = Services::start(stack, places, metrics)?;
    let served = async {
        services.ready().await?;
        if command.is_empty() {
            out::result(card::card(places, stack, metrics));
        }
        tokio::select! {
            () = watch(stack, &mut services) => Ok(()),
            ended = obey(command, places) => ended,
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = stop.asked() => if command.is_empty() { Ok(()) } else { Err(Error::Interrupted) },
    };
    out::note("stopping ...");
    services.stop(stop).await;
    ended
}

/// Runs the command to its end; without one, waits for ever.
async fn obey(command: &[OsString], places: &[Place]) -> Result<(), Error> {
    let Some((program, arguments)) = command.split_first() else {
        return std::future::pending().await;
    };
    let addresses = places.iter().map(|(name, address)| (format!("TIDINGS_{}_ADDR", name.to_uppercase()), address));
    let status = Command::new(program)
        .args(arguments)
        .envs(addresses.map(|(name, address)| (name, address.to_string())))
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|cause| Error::System { action: "run the command", cause })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: program.to_string_lossy().into_owned(), status })
}

/// Starts again whatever dies, for ever, and says so.
async fn watch(stack: &Devstack, services: &mut Services) {
    let mut looks = interval(LOOK);
    let mut patience = [Patience::default(), Patience::default()];
    loop {
        looks.tick().await;
        if !stack.postgres().running() {
            patience[0].pause("postgres").await;
            report("postgres", stack.postgres().start().await);
        }
        if !stack.redis().running() {
            patience[1].pause("redis").await;
            report("redis", stack.redis().start().await);
        }
        for service in services.iter_mut() {
            watch_service(service).await;
        }
    }
}

async fn watch_service(service: &mut Service) {
    if let Some(how) = service.ended() {
        out::note(format_args!("{} ended ({how}), starting it again ...", service.name()));
        sleep(service.pause()).await;
        if let Err(error) = service.start() {
            out::note(error);
        }
    }
}

fn report(server: &str, started: Result<(), tidings_devstack::Error>) {
    match started {
        Ok(()) => out::note(format_args!("{server} runs again")),
        Err(error) => out::note(error), // the next look tries again
    }
}

/// How long to wait before something that died is started again.
#[derive(Debug)]
struct Patience {
    pause: Duration,
    last: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: PAUSE_MIN, last: None }
    }
}

impl Patience {
    /// The next pause: doubled if the last one was a moment ago.
    fn next_pause(&mut self) -> Duration {
        let recent = self.last.is_some_and(|last| last.elapsed() < PAUSE_MAX * 2);
        self.pause = if recent { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        self.last = Some(Instant::now());
        self.pause
    }

    async fn pause(&mut self, what: &str) {
        out::note(format_args!("{what} ended, starting it again ..."));
        sleep(self.next_pause()).await;
    }
}

/// The wish of whoever runs us that we stop.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|cause| Error::System { action: "listen for signals", cause });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for Ctrl-C or SIGTERM.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
