//! `tidings replay`: sends real conversations through the services and checks that they are read
//! back equal.
//!
//! `log` and `replies` parse files, `ids` derives ids, `plan` collects the requests to send. `run`
//! is the sequence of phases: `import` sends the requests through `clients`, which retry calls,
//! under the lock of `import_lock`, while `readers` subscribe; `check` reads everything back.
//! `report` prints a summary.

mod check;
mod clients;
mod concurrent;
mod difference;
mod files;
mod findings;
mod ids;
mod import;
mod import_lock;
mod log;
mod plan;
mod progress;
mod readers;
mod replies;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidings_client::{Addresses, Policy};

use self::clients::{ServiceAddresses, ServiceClients};
use self::difference::Difference;
use self::log::SkippedLines;
use self::plan::ReplayPlan;
use self::report::ReplayReport;
use self::run::{ReplayOptions, ReplayOutcome, ReplayRun};
use crate::address;
use crate::args::{self, Output};
use crate::progress::ProgressMode;
use crate::{credentials, exit, out};

const FORMAT: &str = "\
Log format:
  Lines `[HH:MM] <nick> text`, `[HH:MM]  * nick action` and `=== ...`, numbered
  from 0, ending with LF or CRLF. Bytes that are not UTF-8 are replaced.
  Malformed lines are reported by number and skipped. A file beside the log with
  the extension .replies holds lines `A B -`: line B replies to line A. If a line
  replies to several, the last one that was sent is used.

Conversations, users and messages:
  A file is a conversation; its id is PREFIX + file name without extension, its
  title the file name. A nick in lower case is a user; its id is `irc-` + nick.
  In ids, bytes outside [A-Za-z0-9._-] ([a-z0-9._-] in nicks) become ~hh. Each
  line except `===` is a message with the attributes line, nick, time (as
  written) and kind (text or action). Its client_message_id is `l` + line number,
  so it is stored once, however often it is sent.

Sending:
  Each conversation is sent under its own lock, `replay/` + id. A message is sent
  after the previous one was acknowledged. If the lock is lost, sending pauses
  until it is acquired again. Meanwhile readers subscribe to `conversation/` + id
  and fill gaps and resets from history.

Checks:
  Each reader must receive every message once and in order, or a gap or reset in
  its place. Then each conversation is read back in pages from both ends, the
  messages of each author are listed, and each user is read three times. All must
  equal what was sent. Services, Redis and Postgres may be killed and restarted
  meanwhile.

Examples:
  tidings replay demo
  tidings replay monday.log tuesday.log --prefix again- --speed 20";

/// Send conversations from IRC logs through the services, and check that they are read back equal
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub(crate) struct Args {
    /// Log files, or directories with *.log files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Prefix of conversation ids, at most 32 of [A-Za-z0-9._~-]; a new prefix creates new
    /// conversations from the same logs
    #[arg(long, value_name = "TEXT", default_value = "irc-", value_parser = prefix)]
    prefix: String,

    /// Concurrent conversations and concurrent user calls: 1 to 256
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// Maximum messages per second in each conversation; 0 means unlimited
    #[arg(long, value_name = "N", default_value = "0", value_parser = speed)]
    speed: f64,

    /// Readers that subscribe to each conversation while it is sent: 0 to 16
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(0..=16))]
    readers: u16,

    /// Messages in a page when reading back: 1 to 200
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(i32).range(1..=200))]
    page_size: i32,

    /// Longest wait for one response, e.g. 800ms or 5s; then the call is retried
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    timeout: Duration,

    /// Longest time to retry one call before the replay ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = args::duration)]
    patience: Duration,

    /// Address of the user service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::USER_VARIABLE, default_value = address::USER_ADDRESS)]
    user_addr: Addresses,

    /// Address of the history service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::HISTORY_VARIABLE, default_value = address::HISTORY_ADDRESS)]
    history_addr: Addresses,

    /// Address of the lock service, HOST:PORT or https://HOST:PORT; several separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::LOCK_VARIABLE, default_value = address::LOCK_ADDRESS)]
    lock_addr: Addresses,

    /// Address of the broadcast service, HOST:PORT or https://HOST:PORT; several separated by
    /// commas
    #[arg(long, value_name = "ADDRESS", env = address::BROADCAST_VARIABLE, default_value = address::BROADCAST_ADDRESS)]
    broadcast_addr: Addresses,

    /// Output format of the summary
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    credentials: credentials::Args,
}

fn prefix(text: &str) -> Result<String, &'static str> {
    ids::legal_prefix(text).then(|| text.to_owned()).ok_or("expected at most 32 of [A-Za-z0-9._~-]")
}

fn speed(text: &str) -> Result<f64, &'static str> {
    /// Messages per second. Beyond any service's speed; keeps the interval between two messages
    /// above zero.
    const SPEED_MAX: f64 = 1e6;
    match text.parse() {
        Ok(speed) if (0.0..=SPEED_MAX).contains(&speed) => Ok(speed),
        _ => Err("expected messages per second, 0 to 1000000"),
    }
}

/// Error of `tidings replay`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The logs cannot be read.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// A service failed.
    #[error(transparent)]
    Service(#[from] clients::Error),
    /// Messages or users were read back different from what was sent.
    #[error("{count} differences found; first: {first}")]
    Different {
        /// Number of differences, at least 1.
        count: usize,
        /// The first difference.
        first: Box<Difference>,
    },
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Files(_) | Self::Credentials(_) => exit::USAGE,
            Self::Service(_) => exit::SERVICE,
            Self::Different { .. } => exit::NO,
        }
    }
}

/// Reads the logs, sends them, reads everything back and prints a summary.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let begin = Instant::now();
    let plan = plan(&args.files, &args.prefix)?;
    // No retry budget: only `--patience` bounds the retries of a call.
    let policy = Policy { timeout: args.timeout, patience: args.patience, budget: None };
    let addresses = ServiceAddresses {
        user: &args.user_addr,
        history: &args.history_addr,
        lock: &args.lock_addr,
        broadcast: &args.broadcast_addr,
        credentials: &args.credentials,
    };
    let clients = ServiceClients::new(&addresses, &policy)?;
    let options = ReplayOptions {
        parallel: args.parallel.into(),
        interval: (args.speed > 0.0).then(|| Duration::from_secs_f64(1.0 / args.speed)),
        readers: args.readers,
        page_size: args.page_size,
    };
    let run = ReplayRun { progress: ProgressMode::new(args.quiet), plan: &plan, clients: &clients, options };
    let ReplayOutcome { findings, sending, checking } = run.run().await?;

    let report = ReplayReport {
        conversations: plan.conversations.len(),
        users: plan.users.len(),
        readers: args.readers,
        input: plan.input,
        findings: &findings,
        retries: clients.retries(),
        sending,
        checking,
        total: begin.elapsed(),
    };
    out::result(report.render(args.output));
    match findings.first {
        None => Ok(()),
        Some(first) => Err(Error::Different { count: findings.differences, first: Box::new(first) }),
    }
}

/// Reads all logs and reports their malformed lines.
fn plan(files: &[PathBuf], prefix: &str) -> Result<ReplayPlan, files::Error> {
    let mut plan = ReplayPlan::default();
    for file in files::find(files, prefix)? {
        let log = log::parse(&files::read(&file.path)?);
        report_skipped(&file.path, &log.malformed);
        let path = file.path.with_extension("replies");
        let replies = replies::parse(&files::read_if_present(&path)?);
        report_skipped(&path, &replies.malformed);
        plan.add(file, log, &replies);
    }
    Ok(plan)
}

fn report_skipped(path: &Path, malformed: &SkippedLines) {
    for (line, error) in &malformed.first {
        out::note(format_args!("{}: line {line} skipped: {error}", path.display()));
    }
    match malformed.count - malformed.first.len() {
        0 => {}
        more => out::note(format_args!("{}: {more} more lines skipped", path.display())),
    }
}
