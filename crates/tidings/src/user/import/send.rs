//! Creates the users of an import, a bounded number at once.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use indicatif::ProgressBar;
use tidings_client::Caller;
use tidings_proto::user::CreateUserRequest;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_status::{Failure, code_name};
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use super::line::{Flaw, Line};
use super::rejects::Rejects;
use super::source::Source;
use crate::out;
use crate::progress::{Place, Progress, repeated};

/// When nothing was done for so long it is said what is waited for.
const STILL: Duration = Duration::from_secs(1);
const BAR: &str = "{prefix:>12} [{bar:32}] line {human_pos} of {human_len}{msg}";
/// The same where nobody knows how many there are.
const BAR_WITHOUT_END: &str = "{prefix:>12} line {human_pos}{msg}";

/// What became of the lines, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// How many users were created.
    pub(super) created: u64,
    /// How many were there already.
    pub(super) already: u64,
    /// How many lines were refused.
    pub(super) refused: u64,
    /// The first of them.
    pub(super) refusals: Vec<(u64, Flaw)>,
    /// The last line that is done, with all before it.
    pub(super) last: u64,
    /// How many calls were repeats.
    pub(super) repeats: u64,
}

impl Tally {
    /// Refusals that programs are told; a file that is nothing at all has as many as it has lines.
    const TOLD: usize = 100;

    /// How many lines are done.
    pub(super) fn lines(&self) -> u64 {
        self.created + self.already + self.refused
    }
}

/// How an import came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// Every line was read, and is done.
    Whole,
    /// A line was refused, and that was to end it.
    Stopped,
    /// By Ctrl-C.
    Interrupted,
    /// The file can not be read on.
    Unread(io::Error),
    /// A refused line could not be kept.
    Unkept(io::Error),
    /// The service refuses everything, or did not answer for too long.
    Failed(tidings_client::Error),
}

/// An import under way.
pub(super) struct Import {
    caller: Caller,
    file: PathBuf,
    rejects: Mutex<Option<Rejects>>,
    in_flight: usize,
    stop_on_error: bool,
    tally: Mutex<Tally>,
    /// How the last attempt failed, until another is answered.
    trouble: Mutex<Option<String>>,
}

/// What became of a line.
enum Outcome {
    Created,
    Already,
    Refused(Vec<Flaw>),
}

impl Import {
    pub(super) fn new(
        caller: Caller,
        file: PathBuf,
        rejects: Option<Rejects>,
        in_flight: usize,
        stop_on_error: bool,
    ) -> Self {
        let (tally, trouble) = (Mutex::default(), Mutex::default());
        Self { caller, file, rejects: Mutex::new(rejects), in_flight, stop_on_error, tally, trouble }
    }

    /// Creates everybody, and tells meanwhile how far it is.
    pub(super) async fn run(self, source: Source, progress: Progress) -> (Tally, End) {
        let template = if source.total.is_some() { BAR } else { BAR_WITHOUT_END };
        let bar = progress.bar(template, "users", source.total.unwrap_or_default());
        let total = source.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let mut moved = (0, Instant::now());
        let look = |now| {
            let last = lock(&self.tally).last;
            if last != moved.0 {
                moved = (last, now);
            }
            self.look(&total, now - moved.1 > STILL)
        };
        let job = async {
            tokio::select! {
                end = self.send(read_ahead(source, self.in_flight), &bar) => end,
                _ = ctrl_c() => End::Interrupted,
            }
        };
        let end = progress.during(&bar, look, job).await;
        let tally = Tally { repeats: self.caller.repeats(), ..lock(&self.tally).clone() };
        (tally, end)
    }

    fn look(&self, total: &str, waits: bool) -> Place {
        let repeated = repeated(self.caller.repeats());
        let message = match &*lock(&self.trouble) {
            Some(trouble) if waits => format!("{repeated}; waiting for the user service: {trouble}"),
            None if waits => format!("{repeated}; waiting for the user service"),
            _ => repeated,
        };
        let Tally { last, created, refused, .. } = *lock(&self.tally);
        let line = format!("users: line {last}{total}, {created} created, {refused} refused{message}");
        Place { position: last, message, line }
    }

    /// Sends the lines; they are judged in their order, whatever the order of their answers.
    async fn send(&self, lines: impl Stream<Item = io::Result<Line>>, bar: &ProgressBar) -> End {
        let outcomes = lines.map(async |line| {
            let line = line.map_err(End::Unread)?;
            let outcome = self.create(&line).await.map_err(End::Failed)?;
            Ok((line, outcome))
        });
        let mut outcomes = pin!(outcomes.buffered(self.in_flight));
        while let Some(outcome) = outcomes.next().await {
            let ended = outcome.and_then(|(line, outcome)| self.judge(&line, outcome, bar));
            if let Err(end) = ended {
                return end;
            }
        }
        lock(&self.rejects).as_mut().map_or(Ok(()), Rejects::finish).map_or_else(End::Unkept, |()| End::Whole)
    }

    /// Counts a line. Fails if the import ends with it.
    fn judge(&self, line: &Line, outcome: Outcome, bar: &ProgressBar) -> Result<(), End> {
        let mut tally = lock(&self.tally);
        tally.last = line.number;
        match outcome {
            Outcome::Created => tally.created += 1,
            Outcome::Already => tally.already += 1,
            Outcome::Refused(flaws) => {
                tally.refused += 1;
                for flaw in flaws {
                    bar.suspend(|| out::note(format_args!("{}: line {}: {flaw}", self.file.display(), line.number)));
                    if tally.refusals.len() < Tally::TOLD {
                        tally.refusals.push((line.number, flaw));
                    }
                }
                lock(&self.rejects).as_mut().map_or(Ok(()), |rejects| rejects.keep(line)).map_err(End::Unkept)?;
                if self.stop_on_error {
                    return Err(End::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Creates the user of a line, or finds that it was created.
    ///
    /// # Errors
    /// It is not the line that is to blame.
    async fn create(&self, line: &Line) -> Result<Outcome, tidings_client::Error> {
        let wish = match &line.wish {
            Ok(wish) => wish,
            Err(flaws) => return Ok(Outcome::Refused(flaws.clone())),
        };
        let send = async |channel, request: tonic::Request<CreateUserRequest>| {
            let answer = UserServiceClient::new(channel).create_user(request).await;
            *lock(&self.trouble) = answer.as_ref().err().map(|status| {
                let failure = Failure::from(status);
                let reason = if failure.reason.is_empty() { status.message() } else { &failure.reason };
                format!("{} {reason}", code_name(failure.code))
            });
            answer
        };
        match self.caller.call("CreateUser", wish, send).await {
            Ok(answer) if answer.deduplicated => Ok(Outcome::Already),
            Ok(_) => Ok(Outcome::Created),
            Err(error) => match error.refused().filter(|failure| is_of_the_line(failure)) {
                Some(failure) => {
                    *lock(&self.trouble) = None; // it has spoken
                    Ok(Outcome::Refused(flaws(failure)))
                }
                None => Err(error),
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether another line may fare better: everything but who we are, and what the service is.
fn is_of_the_line(failure: &Failure) -> bool {
    !matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented)
}

/// What the service says is wrong, by the names that fields have in the file.
fn flaws(failure: &Failure) -> Vec<Flaw> {
    if !failure.violations.is_empty() {
        let name = |field: &str| field.strip_prefix("user.").unwrap_or(field).to_owned();
        return failure.violations.iter().map(|flaw| Flaw::of(&name(&flaw.field), &flaw.description)).collect();
    }
    let field = match failure.reason.as_str() {
        "USER_ID_TAKEN" => "id",
        "HANDLE_TAKEN" => "handle",
        "REQUEST_ID_REUSED" => "request_id",
        _ => return vec![Flaw::whole(&format_args!("{} {}", code_name(failure.code), failure.message))],
    };
    vec![Flaw::of(field, &failure.message)]
}

/// Reads on a thread of its own, at most `ahead` lines before they are needed. Nothing is read after an error: what follows
/// may be the rest of a line.
fn read_ahead(source: Source, ahead: usize) -> impl Stream<Item = io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(ahead);
    thread::spawn(move || {
        // Until nobody wants any more.
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

    use super::super::line::Raw;
    use super::*;

    #[test]
    fn the_bars_can_be_drawn() {
        for bar in [BAR, BAR_WITHOUT_END] {
            assert!(ProgressStyle::with_template(bar).is_ok());
        }
    }

    #[tokio::test]
    async fn nothing_is_read_after_an_error() {
        let lines =
            [Err(io::Error::other("too long")), Ok(Line { number: 3, raw: Raw::Text(vec![]), wish: Err(vec![]) })];
        let source = Source { lines: Box::new(lines.into_iter()), header: None, identity: None, total: None };

        assert_eq!(read_ahead(source, 8).count().await, 1);
    }

    #[test]
    fn a_refusal_is_told_by_the_field_as_the_file_names_it() {
        let mut fields = Fields::new("user.tidings");
        fields.refuse("user.age", "expected 0 to 150, got 200");
        let malformed = Status::from(fields.finish().unwrap_err());
        let taken = Reply::new(Code::AlreadyExists, "user.tidings", "HANDLE_TAKEN", "taken").into_status();
        let bug = Status::internal("internal error");

        assert_eq!(flaws(&Failure::from(&malformed)), [Flaw::of("age", "expected 0 to 150, got 200")]);
        assert_eq!(flaws(&Failure::from(&taken)), [Flaw::of("handle", "taken")]);
        assert_eq!(flaws(&Failure::from(&bug)), [Flaw::whole("INTERNAL internal error")]);
    }
}
