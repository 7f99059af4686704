//! `tidings user import`: users from a file, a line each, as often as it takes until all of them are there.
//!
//! Reading order: `source` opens the file, `csv` and `jsonl` read its lines, `name` makes each safe to repeat, `send` creates
//! the users, `rejects` keeps what was refused, `report` sums up.

mod csv;
mod jsonl;
mod line;
mod name;
mod rejects;
mod report;
mod send;
mod source;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidings_client::{Caller, Policy};

use self::rejects::Rejects;
use self::report::Report;
use self::send::{End, Import};
use self::source::{Format, Source};
use super::Service;
use crate::progress::Progress;
use crate::{cli, credentials, error, out};

const MORE: &str = "\
CSV has a first row that names the columns: id, handle, display_name, age,
avatar_uri, bio, attributes.NAME, request_id. An empty cell is a field that is not
set. JSON Lines have a user of the contract on each line, as `user list --output
jsonl` prints them, and may have a request_id besides.

Each line is one user. One that is refused is told with its line (counted from 1)
and field, and the others go on. What is refused can be kept with --rejects, in the
format of the input, to be corrected and imported again.

A quoted cell may have several lines. One whose quote is never closed, or is
followed by text, is refused with all the lines it has; a row of more than 64 KiB
ends the import. In JSON a key that stands twice in an object is refused.

The same import can be run again at any time, after Ctrl-C, a kill or an outage: it
goes on, and creates nobody twice. A user is known again by its id, or by a
request_id. Lines that have neither need --import-name: their request_id is made of
that name, what the line says, and how many equal lines stand before it. So lines
may be added, removed and moved between two runs; a line that was changed is
another user; and under another name the same file makes everybody once more.
Nothing is derived from the number of a line, which changes when lines above it go,
nor from the name of the file, which is no promise of what is in it.

While the service is away it waits, says so, and goes on; after --patience it ends
with exit code 3.

Exit codes: 0 all are there; 1 lines were refused, or it was interrupted, 2 wrong
usage, and nothing was done, 3 a service did not do it.

Examples:
  tidings user import staff.csv
  tidings user import guests.csv --import-name guests-2025 --rejects refused.csv
  produce | tidings user import - --format jsonl --stop-on-error";

/// Create users from a file, CSV or JSON Lines; run again, it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,

    /// What the file holds [default: by its ending, .csv, .jsonl or .ndjson]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Names this import, for lines that have neither id nor request_id
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    import_name: Option<String>,

    /// Write the lines that are refused to this file, which is made anew with the first of them, or when all are done
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,

    /// End at the first line that is refused; a few after it may have been created
    #[arg(long)]
    stop_on_error: bool,

    /// Users created at once: 1 to 256
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,

    /// Longest time that one call may go on failing before the import ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = cli::duration)]
    patience: Duration,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    service: Service,
}

/// Why not everybody is there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file can not be used.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The file of refused lines can not be used.
    #[error("--rejects '{}': {problem}", .path.display())]
    Rejects {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// Some lines were refused.
    #[error("{refused} of {lines} lines were refused{}", where_kept(.kept.as_ref()))]
    Refused {
        /// How many.
        refused: u64,
        /// Of how many.
        lines: u64,
        /// Where they are.
        kept: Option<PathBuf>,
    },
    /// It was told to end.
    #[error("interrupted; the same command again goes on")]
    Interrupted,
    /// The file could be read no further, or what was refused not be kept.
    #[error("{what}: {cause}; the same command again goes on")]
    Files {
        /// What could not be done.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The service refused everything, or did not answer for too long.
    #[error("{0}\n  nothing is lost: the same command again goes on")]
    Service(tidings_client::Error),
}

fn where_kept(path: Option<&PathBuf>) -> String {
    path.map(|path| format!("; they are in {}", path.display())).unwrap_or_default()
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Source(_) | Self::Rejects { .. } | Self::Credentials(_) => error::USAGE,
            Self::Refused { .. } | Self::Interrupted | Self::Files { .. } => error::NO,
            Self::Service(_) => error::SERVICE,
        }
    }
}

/// Reads, creates, sums up.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let begin = Instant::now();
    let source = Source::open(&args.file, args.format, args.import_name)?;
    // Everything has to be answered, whatever it takes: it is the patience that ends.
    let policy = Policy { timeout: args.service.timeout, patience: args.patience, budget: None };
    let caller = Caller::new(args.service.credentials.endpoints(&args.service.addr)?, policy);
    let rejects = args.rejects.as_deref().map(|path| Rejects::open(path, &source)).transpose()?;

    let import = Import::new(caller, args.file, rejects, args.in_flight.into(), args.stop_on_error);
    let (tally, end) = import.run(source, Progress::new(args.quiet)).await;
    out::result(Report { tally: &tally, end: &end, total: begin.elapsed() }.render(args.service.output));
    match end {
        End::Whole | End::Stopped if tally.refused > 0 => {
            Err(Error::Refused { refused: tally.refused, lines: tally.lines(), kept: args.rejects })
        }
        End::Whole | End::Stopped => Ok(()),
        End::Interrupted => Err(Error::Interrupted),
        End::Unread(cause) => Err(Error::Files { what: "can not read on", cause }),
        End::Unkept(cause) => Err(Error::Files { what: "can not keep a refused line", cause }),
        End::Failed(error) => Err(Error::Service(error)),
    }
}
