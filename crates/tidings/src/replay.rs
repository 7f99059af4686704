//! `tidings replay`: sends real conversations through the services and reads them back equal.
//!
//! Reading order: `log` and `replies` read files, `names` makes ids, `plan` decides what is to be sent; `import` sends
//! it through `services`, which repeat calls until they are answered, under the lock that `hold` holds, while `readers`
//! listen; `check` reads it back; `report` sums up.

mod check;
mod difference;
mod files;
mod findings;
mod hold;
mod import;
mod log;
mod names;
mod plan;
mod progress;
mod readers;
mod replies;
mod report;
mod services;
mod side_by_side;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidings_client::{Addresses, Policy};

use self::difference::Difference;
use self::findings::Findings;
use self::log::Malformed;
use self::plan::{Conversation, Plan};
use self::progress::during;
use self::report::Report;
use self::services::{Places, Services};
use self::side_by_side::side_by_side;
use crate::address;
use crate::cli::{self, Output};
use crate::progress::Progress;
use crate::{credentials, error, out};

const FORMAT: &str = "\
What is sent:
  A log has lines `[HH:MM] <nick> text`, `[HH:MM]  * nick action` and `=== ...`,
  counted from 0. Each file is a conversation: its id is PREFIX + file name
  without ending, its title the file name. Each line but `===` is a message. A
  nick folded to lower case is a user: its id is `irc-` + nick. Bytes outside
  [A-Za-z0-9._-] ([a-z0-9._-] in nicks) are written as ~hh in ids. A message has
  the attributes line, nick, time (as written) and kind (text or action), and
  `l` + line number as client_message_id: it is stored once, however often it is
  sent. In the file with the ending .replies beside a log, `A B -` says that
  line B answers line A; the last answered line that was sent is taken. Bytes
  that are not UTF-8 are replaced; a carriage return before the end of a line
  belongs to the end. Lines that cannot be sent are told by number and skipped.

How it is sent:
  Each conversation is sent under a lock of its own, `replay/` + its id, one
  message after the acknowledgement of the one before. If the lock is lost,
  nothing is sent until it is held again. Meanwhile readers subscribe to
  `conversation/` + its id; what broadcast says it has lost they read from
  history.

What is checked:
  Each reader must have received every message once and in order, or been told
  that something is missing where it was. Then each conversation is read back in
  pages from both ends, each author's messages are listed, each user is read
  three times; all must equal what was sent. Services, Redis and Postgres may be
  killed and started again meanwhile.

Examples:
  tidings replay demo
  tidings replay monday.log tuesday.log --prefix again- --speed 20";

/// Send conversations from log files through the services, then check that they are read back equal.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub(crate) struct Args {
    /// Logs to replay; a directory means every *.log in it
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// What the ids of conversations begin with, at most 32 of [A-Za-z0-9._~-]; with another one the same logs are
    /// replayed a second time
    #[arg(long, value_name = "TEXT", default_value = "irc-", value_parser = prefix)]
    prefix: String,

    /// Conversations sent, and users created or read, at once: 1 to 256
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// Messages per second in each conversation, at most; 0 means as fast as possible
    #[arg(long, value_name = "N", default_value = "0", value_parser = speed)]
    speed: f64,

    /// Readers that listen to each conversation while it is sent: 0 to 16
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(0..=16))]
    readers: u16,

    /// Messages read back at once: 1 to 200
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(i32).range(1..=200))]
    page_size: i32,

    /// Longest time to wait for one answer, e.g. 800ms or 5s; then the call is repeated
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = cli::duration)]
    timeout: Duration,

    /// Longest time that one call may go on failing before the replay ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = cli::duration)]
    patience: Duration,

    /// Where the user service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::USER_VARIABLE, default_value = address::USER_ADDRESS)]
    user_addr: Addresses,

    /// Where the history service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::HISTORY_VARIABLE, default_value = address::HISTORY_ADDRESS)]
    history_addr: Addresses,

    /// Where the lock service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::LOCK_VARIABLE, default_value = address::LOCK_ADDRESS)]
    lock_addr: Addresses,

    /// Where the broadcast service is, HOST:PORT or https://HOST:PORT, several instances separated by commas
    #[arg(long, value_name = "ADDRESS", env = address::BROADCAST_VARIABLE, default_value = address::BROADCAST_ADDRESS)]
    broadcast_addr: Addresses,

    /// How to print the summary
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    credentials: credentials::Args,
}

fn prefix(text: &str) -> Result<String, &'static str> {
    names::legal_prefix(text).then(|| text.to_owned()).ok_or("expected at most 32 of [A-Za-z0-9._~-]")
}

fn speed(text: &str) -> Result<f64, &'static str> {
    /// Nobody can send faster; it keeps the pause between two messages above nothing.
    const MOST: f64 = 1e6;
    match text.parse() {
        Ok(speed) if (0.0..=MOST).contains(&speed) => Ok(speed),
        _ => Err("expected messages per second, 0 to 1000000"),
    }
}

/// Why a replay does not end with everything equal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The logs cannot be read.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// A service did not do its part.
    #[error(transparent)]
    Service(#[from] services::Error),
    /// What was read is not what was sent.
    #[error("not equal ({count} found); the first: {first}")]
    Different {
        /// How many differences there are.
        count: usize,
        /// The first.
        first: Box<Difference>,
    },
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Files(_) | Self::Credentials(_) => error::USAGE,
            Self::Service(_) => error::SERVICE,
            Self::Different { .. } => error::NO,
        }
    }
}

/// Reads, sends, reads back, sums up.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let begin = Instant::now();
    let plan = plan(&args.files, &args.prefix)?;
    // Everything has to be answered, whatever it takes: it is the patience that ends.
    let policy = Policy { timeout: args.timeout, patience: args.patience, budget: None };
    let places = Places {
        user: &args.user_addr,
        history: &args.history_addr,
        lock: &args.lock_addr,
        broadcast: &args.broadcast_addr,
        credentials: &args.credentials,
    };
    let services = Services::new(&places, &policy)?;
    let work = Work { progress: Progress::new(args.quiet), plan: &plan, services: &services, args: &args };
    let (findings, sending, checking) = work.run().await?;

    let report = Report {
        conversations: plan.conversations.len(),
        users: plan.users.len(),
        readers: args.readers,
        input: plan.input,
        findings: &findings,
        retries: services.repeats(),
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

/// Reads all logs, and tells which of their lines are nothing.
fn plan(files: &[PathBuf], prefix: &str) -> Result<Plan, files::Error> {
    let mut plan = Plan::default();
    for source in files::find(files, prefix)? {
        let log = log::parse(&files::read(&source.path)?);
        tell(&source.path, &log.malformed);
        let path = source.path.with_extension("replies");
        let replies = replies::parse(&files::read_if_there(&path)?);
        tell(&path, &replies.malformed);
        plan.add(source, log, &replies);
    }
    Ok(plan)
}

fn tell(path: &Path, malformed: &Malformed) {
    for (line, fault) in &malformed.first {
        out::note(format_args!("{}: line {line} is skipped: {fault}", path.display()));
    }
    match malformed.count - malformed.first.len() {
        0 => {}
        more => out::note(format_args!("{}: {more} more lines are skipped", path.display())),
    }
}

/// The work on the services, stretch by stretch.
#[derive(Clone, Copy)]
struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    services: &'a Services,
    progress: Progress,
}

impl<'a> Work<'a> {
    /// Does all of it. Returns what was found, and how long sending and reading back took.
    async fn run(self) -> Result<(Findings, Duration, Duration), services::Error> {
        let Self { args, plan, services, progress } = self;
        let (parallel, repeats) = (usize::from(args.parallel), || services.repeats());
        let job = async |done: &_| import::users(services, &plan.users, parallel, done).await;
        let (users, mut findings) = during(progress, "users", plan.users.len(), repeats, job).await?;

        let begin = Instant::now();
        let (sent, sending) = self.send().await?;
        findings.add(sending);
        let sending = begin.elapsed();

        let begin = Instant::now();
        findings.add(self.check_conversations(&sent).await?);
        findings.add(self.check_authors(&sent).await?);
        let checking = begin.elapsed();

        let job = async |done: &_| check::users::check(services, &users, parallel, done).await;
        findings.add(during(progress, "users read", 3 * users.len(), repeats, job).await?);
        Ok((findings, sending, checking))
    }

    /// Sends the conversations side by side, while readers listen. Returns those that were acknowledged to their end.
    async fn send(self) -> Result<(Vec<&'a Conversation>, Findings), services::Error> {
        let Self { args, plan, services, progress } = self;
        let total = plan.conversations.iter().map(|conversation| conversation.messages.len()).sum();
        let pace = (args.speed > 0.0).then(|| Duration::from_secs_f64(1.0 / args.speed));
        let outcomes = during(
            progress,
            "messages sent",
            total,
            || services.repeats(),
            async |done| {
                let job = async |conversation| {
                    let import = import::conversation(services, conversation, pace, done);
                    readers::listen_during(services, conversation, args.readers, import).await
                };
                side_by_side(&plan.conversations, args.parallel.into(), job).await
            },
        );
        let mut all = Findings::default();
        let mut sent = Vec::new();
        for (conversation, (complete, findings)) in plan.conversations.iter().zip(outcomes.await?) {
            sent.extend(complete.then_some(conversation));
            all.add(findings);
        }
        Ok((sent, all))
    }

    async fn check_conversations(self, sent: &[&'a Conversation]) -> Result<Findings, services::Error> {
        let Self { args, services, progress, .. } = self;
        let total = 2 * sent.iter().map(|sent| sent.messages.len()).sum::<usize>();
        let outcomes = during(
            progress,
            "messages read",
            total,
            || services.repeats(),
            async |done| {
                let job = async |sent: &&Conversation| {
                    check::conversations::check(services, sent, args.page_size, done).await
                };
                side_by_side(sent, args.parallel.into(), job).await
            },
        );
        Ok(sum(outcomes.await?))
    }

    async fn check_authors(self, sent: &[&'a Conversation]) -> Result<Findings, services::Error> {
        let Self { args, services, progress, .. } = self;
        let conversations: HashMap<_, _> = sent.iter().map(|sent| (sent.id.as_str(), *sent)).collect();
        let total = sent.iter().map(|sent| sent.messages.len()).sum();
        let outcomes = during(
            progress,
            "by author",
            total,
            || services.repeats(),
            async |done| {
                let job = async |(user, authored)| {
                    check::authors::check(services, &conversations, user, authored, args.page_size, done).await
                };
                side_by_side(check::authors::authors(sent), args.parallel.into(), job).await
            },
        );
        Ok(sum(outcomes.await?))
    }
}

fn sum(outcomes: Vec<Findings>) -> Findings {
    let mut all = Findings::default();
    for findings in outcomes {
        all.add(findings);
    }
    all
}
