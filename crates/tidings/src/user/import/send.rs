//! Creates the users of an import, with a bounded number of concurrent calls.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use indicatif::ProgressBar;
use parking_lot::Mutex;
use tidings_client::Caller;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, ErrorReason};
use tidings_status::{Failure, code_name};
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use super::line::{ImportLine, LineError};
use super::rejects::Rejects;
use super::source::ImportSource;
use crate::out;
use crate::progress::{ProgressMode, ProgressSnapshot, retries_suffix};

/// Time without a finished line after which the progress says what the import waits for.
const IDLE_NOTICE: Duration = Duration::from_secs(1);
const BAR: &str = "{prefix:>12} [{bar:32}] line {human_pos} of {human_len}{msg}";
/// The progress bar for an input of unknown length.
const BAR_WITHOUT_LENGTH: &str = "{prefix:>12} line {human_pos}{msg}";

/// The counts of an import; lines are counted in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct ImportTally {
    /// Number of users created.
    pub(super) created: u64,
    /// Users that had been created before.
    pub(super) already_existed: u64,
    /// Number of lines refused.
    pub(super) refused: u64,
    /// The first refused lines, with their numbers; at most [`Self::REFUSALS_MAX`].
    pub(super) refusals: Vec<(u64, LineError)>,
    /// The number of the last finished line; all lines before it are finished too.
    pub(super) last_line: u64,
    /// Calls that were retries.
    pub(super) retries: u64,
}

impl ImportTally {
    /// Most refusals in the JSON summary: in a file of the wrong format every line is refused.
    const REFUSALS_MAX: usize = 100;

    /// Returns the number of finished lines.
    pub(super) fn lines(&self) -> u64 {
        self.created + self.already_existed + self.refused
    }
}

/// The reason for which an import ended.
#[derive(Debug)]
pub(super) enum ImportEnd {
    /// Every line is finished.
    Completed,
    /// A line was refused, and `--stop-on-error` is set.
    StoppedAtRefusal,
    /// Ctrl-C was pressed.
    Interrupted,
    /// The input cannot be read further.
    ReadFailed(io::Error),
    /// A refused line could not be written to the file of rejects.
    RejectsFailed(io::Error),
    /// The service refused the caller, or did not respond within `--patience`.
    ServiceFailed(tidings_client::Error),
}

/// A running import.
pub(super) struct Import {
    caller: Caller,
    file: PathBuf,
    rejects: Mutex<Option<Rejects>>,
    in_flight: usize,
    stop_on_error: bool,
    tally: Mutex<ImportTally>,
    /// Failure of the most recent attempt; `None` after a success or a refused line.
    last_failure: Mutex<Option<String>>,
}

/// The outcome of one line.
enum LineOutcome {
    Created,
    AlreadyExisted,
    Refused(Vec<LineError>),
}

impl Import {
    pub(super) fn new(
        caller: Caller,
        file: PathBuf,
        rejects: Option<Rejects>,
        in_flight: usize,
        stop_on_error: bool,
    ) -> Self {
        let (tally, last_failure) = (Mutex::default(), Mutex::default());
        Self { caller, file, rejects: Mutex::new(rejects), in_flight, stop_on_error, tally, last_failure }
    }

    /// Creates the users of `source` and reports the progress.
    pub(super) async fn run(self, source: ImportSource, progress: ProgressMode) -> (ImportTally, ImportEnd) {
        let template = if source.total.is_some() { BAR } else { BAR_WITHOUT_LENGTH };
        let bar = progress.bar(template, "users", source.total.unwrap_or_default());
        let total = source.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let mut last_progress = (0, Instant::now());
        let snapshot = |now| {
            let last = self.tally.lock().last_line;
            if last != last_progress.0 {
                last_progress = (last, now);
            }
            self.snapshot(&total, now - last_progress.1 > IDLE_NOTICE)
        };
        let job = async {
            tokio::select! {
                end = self.send(read_ahead(source, self.in_flight), &bar) => end,
                _ = ctrl_c() => ImportEnd::Interrupted,
            }
        };
        let end = progress.during(&bar, snapshot, job).await;
        let tally = ImportTally { retries: self.caller.retries(), ..self.tally.lock().clone() };
        (tally, end)
    }

    fn snapshot(&self, total: &str, is_waiting: bool) -> ProgressSnapshot {
        let retries = retries_suffix(self.caller.retries());
        let message = match &*self.last_failure.lock() {
            Some(last_failure) if is_waiting => format!("{retries}; waiting for the user service: {last_failure}"),
            None if is_waiting => format!("{retries}; waiting for the user service"),
            _ => retries,
        };
        let ImportTally { last_line: last, created, refused, .. } = *self.tally.lock();
        let line = format!("users: line {last}{total}, {created} created, {refused} refused{message}");
        ProgressSnapshot { position: last, message, line }
    }

    /// Sends the lines concurrently and records their outcomes in the order of the file.
    async fn send(&self, lines: impl Stream<Item = io::Result<ImportLine>>, bar: &ProgressBar) -> ImportEnd {
        let outcomes = lines.map(async |line| {
            let line = line.map_err(ImportEnd::ReadFailed)?;
            let outcome = self.create(&line).await.map_err(ImportEnd::ServiceFailed)?;
            Ok((line, outcome))
        });
        let mut outcomes = pin!(outcomes.buffered(self.in_flight));
        while let Some(outcome) = outcomes.next().await {
            let ended = outcome.and_then(|(line, outcome)| self.record(&line, outcome, bar));
            if let Err(end) = ended {
                return end;
            }
        }
        self.rejects
            .lock()
            .as_mut()
            .map_or(Ok(()), Rejects::finish)
            .map_or_else(ImportEnd::RejectsFailed, |()| ImportEnd::Completed)
    }

    /// Counts a finished line.
    ///
    /// # Errors
    /// The import ends with this line.
    fn record(&self, line: &ImportLine, outcome: LineOutcome, bar: &ProgressBar) -> Result<(), ImportEnd> {
        let mut tally = self.tally.lock();
        tally.last_line = line.number;
        match outcome {
            LineOutcome::Created => tally.created += 1,
            LineOutcome::AlreadyExisted => tally.already_existed += 1,
            LineOutcome::Refused(errors) => {
                tally.refused += 1;
                for error in errors {
                    bar.suspend(|| out::note(format_args!("{}: line {}: {error}", self.file.display(), line.number)));
                    if tally.refusals.len() < ImportTally::REFUSALS_MAX {
                        tally.refusals.push((line.number, error));
                    }
                }
                self.rejects
                    .lock()
                    .as_mut()
                    .map_or(Ok(()), |rejects| rejects.append(line))
                    .map_err(ImportEnd::RejectsFailed)?;
                if self.stop_on_error {
                    return Err(ImportEnd::StoppedAtRefusal);
                }
            }
        }
        Ok(())
    }

    /// Creates the user of a line, or finds that it was created before.
    ///
    /// # Errors
    /// The call failed for a reason that does not concern the line.
    async fn create(&self, line: &ImportLine) -> Result<LineOutcome, tidings_client::Error> {
        let request = match &line.request {
            Ok(request) => request,
            Err(errors) => return Ok(LineOutcome::Refused(errors.clone())),
        };
        let send = async |channel, request: tonic::Request<CreateUserRequest>| {
            let response = UserServiceClient::new(channel).create_user(request).await;
            *self.last_failure.lock() = response.as_ref().err().map(|status| {
                let failure = Failure::from(status);
                let reason = if failure.reason.is_empty() { status.message() } else { &failure.reason };
                format!("{} {reason}", code_name(failure.code))
            });
            response
        };
        match self.caller.call("CreateUser", request, send).await {
            Ok(response) if response.deduplicated => Ok(LineOutcome::AlreadyExisted),
            Ok(_) => Ok(LineOutcome::Created),
            Err(error) => match error.refused().filter(|failure| concerns_the_line(failure)) {
                Some(failure) => {
                    *self.last_failure.lock() = None; // the service is available
                    Ok(LineOutcome::Refused(errors(failure)))
                }
                None => Err(error),
            },
        }
    }
}

/// Returns true if a call for another line may succeed: the failure concerns neither the
/// credentials nor the service as a whole.
fn concerns_the_line(failure: &Failure) -> bool {
    !matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented)
}

/// Returns the service's errors under the field names of the file.
fn errors(failure: &Failure) -> Vec<LineError> {
    if !failure.violations.is_empty() {
        let name = |field: &str| field.strip_prefix("user.").unwrap_or(field).to_owned();
        return failure.violations.iter().map(|error| LineError::of(&name(&error.field), &error.description)).collect();
    }
    let field = match ErrorReason::of_text(&failure.reason) {
        Some(ErrorReason::UserIdTaken) => "id",
        Some(ErrorReason::HandleTaken) => "handle",
        Some(ErrorReason::RequestIdReused) => "request_id",
        _ => return vec![LineError::whole(&format_args!("{} {}", code_name(failure.code), failure.message))],
    };
    vec![LineError::of(field, &failure.message)]
}

/// Reads the source on its own thread, at most `ahead` lines in advance.
///
/// Reading ends at the first error: the bytes after it may be the rest of a line.
fn read_ahead(source: ImportSource, ahead: usize) -> impl Stream<Item = io::Result<ImportLine>> {
    let (sender, receiver) = mpsc::channel(ahead);
    thread::spawn(move || {
        // A failed send means that the import has ended.
        let mut lines = source.lines;
        lines.all(|line| {
            let goes_on = line.is_ok();
            sender.blocking_send(line).is_ok() && goes_on
        })
    });
    stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|line| (line, receiver)))
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;
    use tidings_status::{Fields, Reply};
    use tonic::Status;

    use super::super::line::RawLine;
    use super::*;

    #[test]
    fn the_bars_can_be_drawn() {
        for bar in [BAR, BAR_WITHOUT_LENGTH] {
            assert!(ProgressStyle::with_template(bar).is_ok());
        }
    }

    #[tokio::test]
    async fn nothing_is_read_after_an_error() {
        let lines = [
            Err(io::Error::other("too long")),
            Ok(ImportLine { number: 3, raw: RawLine::Text(vec![]), request: Err(vec![]) }),
        ];
        let source = ImportSource { lines: Box::new(lines.into_iter()), header: None, identity: None, total: None };

        assert_eq!(read_ahead(source, 8).count().await, 1);
    }

    #[test]
    fn a_refusal_is_told_by_the_field_as_the_file_names_it() {
        let mut fields = Fields::new("user.tidings");
        fields.refuse("user.age", "expected 0 to 150, got 200");
        let malformed = Status::from(fields.finish().unwrap_err());
        let taken = Reply::new(Code::AlreadyExists, "user.tidings", "HANDLE_TAKEN", "taken").into_status();
        let bug = Status::internal("internal error");

        assert_eq!(errors(&Failure::from(&malformed)), [LineError::of("age", "expected 0 to 150, got 200")]);
        assert_eq!(errors(&Failure::from(&taken)), [LineError::of("handle", "taken")]);
        assert_eq!(errors(&Failure::from(&bug)), [LineError::whole("INTERNAL internal error")]);
    }
}
