//! `tidings user import`: creates the users of a file, one per line; safe to run again.
//!
//! Reading order: `source` opens the file, `csv` and `jsonl` parse its lines, `request_ids` makes
//! each line idempotent, `send` creates the users, `rejects` keeps the refused lines, `report`
//! prints the summary.

mod csv;
pub(super) mod error;
mod identity;
mod jsonl;
mod line;
mod rejects;
mod report;
mod request_ids;
mod send;
mod source;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidings_client::{Caller, Policy};

use self::error::Error;
use self::rejects::Rejects;
use self::report::ImportReport;
use self::send::{Import, ImportEnd};
use self::source::{Format, ImportSource};
use super::service::UserServiceArgs;
use crate::progress::ProgressMode;
use crate::{args, out};

const MORE: &str = "\
The first row of a CSV file names the columns: id, handle, display_name, age,
avatar_uri, bio, attributes.NAME, request_id. An empty cell leaves the field unset.
JSON Lines have one user per line, in the format of `user list --output jsonl`, with
an optional request_id.

Each line is one user. A refused line is reported with its number (counted from 1)
and field; the import continues with the next line. With --rejects the refused lines
are written to a file in the format of the input, to be corrected and imported.

A quoted cell may span lines. A row is refused as a whole if a quote is not closed or
if text follows the closing quote; a row of more than 64 KiB ends the import. A JSON
object with a duplicate key is refused.

The import is idempotent: after Ctrl-C, a kill or an outage the same command
continues, and creates no user twice. Users are recognized by id or request_id. Lines
without either need --import-name: their request_id is derived from that name, the
content of the line and the number of equal lines before it. Between two runs lines
may therefore be added, removed and moved. A changed line is a new user, and with
another --import-name every line is. The position of a line and the name of the file
do not matter.

While the service is unavailable the import waits and says so; after --patience it
ends with exit code 3.

Exit codes: 0 all users exist, 1 lines were refused or the import was interrupted,
2 wrong usage (nothing was created), 3 the service failed or did not respond.

Examples:
  tidings user import staff.csv
  tidings user import guests.csv --import-name guests-2025 --rejects refused.csv
  produce | tidings user import - --format jsonl --stop-on-error";

/// Create users from a CSV or JSON Lines file; run again, it continues and creates no user twice.
#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Args {
    /// File to import, or - for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,

    /// Format of the file [default: by its extension, .csv, .jsonl or .ndjson]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Name of this import, required if lines have neither id nor request_id
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    import_name: Option<String>,

    /// Write refused lines to this file; overwritten at the first of them, or at the end of the
    /// import
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,

    /// End at the first refused line; users of the next few lines may have been created
    #[arg(long)]
    stop_on_error: bool,

    /// Concurrent calls, 1 to 256
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,

    /// Longest time to retry one call before the import ends with exit code 3
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = args::duration)]
    patience: Duration,

    /// Print no progress
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    service: UserServiceArgs,
}

/// Imports the file and prints the summary.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let begin = Instant::now();
    let source = ImportSource::open(&args.file, args.format, args.import_name)?;
    // No retry budget: every line needs an outcome. Only the patience limits the retries.
    let policy = Policy { timeout: args.service.timeout, patience: args.patience, budget: None };
    let caller = Caller::new(args.service.credentials.endpoints(&args.service.addr)?, policy);
    let rejects = args.rejects.as_deref().map(|path| Rejects::open(path, &source)).transpose()?;

    let import = Import::new(caller, args.file, rejects, args.in_flight.into(), args.stop_on_error);
    let (tally, end) = import.run(source, ProgressMode::new(args.quiet)).await;
    out::result(ImportReport { tally: &tally, end: &end, total: begin.elapsed() }.render(args.service.output));
    match end {
        ImportEnd::Completed | ImportEnd::StoppedAtRefusal if tally.refused > 0 => {
            Err(Error::Refused { refused: tally.refused, lines: tally.lines(), rejects: args.rejects })
        }
        ImportEnd::Completed | ImportEnd::StoppedAtRefusal => Ok(()),
        ImportEnd::Interrupted => Err(Error::Interrupted),
        ImportEnd::ReadFailed(cause) => Err(Error::Files { action: "cannot read the input further", cause }),
        ImportEnd::RejectsFailed(cause) => Err(Error::Files { action: "cannot write a refused line", cause }),
        ImportEnd::ServiceFailed(error) => Err(Error::Service(error)),
    }
}
