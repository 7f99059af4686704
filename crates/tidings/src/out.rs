//! Writes results to standard output and notes to standard error. Control and format characters are
//! escaped.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use crate::display::Printable;

/// First failed write of a result; [`finish`] reports it. Process-wide, like standard output.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Writes a result to standard output.
///
/// A closed pipe (`tidings call --list | head`) is no error, so `println!` does not fit. Other
/// failures are reported by [`finish`].
pub(crate) fn result(text: impl Display) {
    stream(text);
}

/// Writes one of many results to standard output. Returns false if no more can be written.
pub(crate) fn stream(text: impl Display) -> bool {
    succeeded(writeln!(io::stdout().lock(), "{}", Printable(text)), &FAILED)
}

/// Flushes standard output.
///
/// # Errors
/// The first failed write, unless the reader closed the pipe.
pub(crate) fn finish() -> Result<(), &'static io::Error> {
    succeeded(io::stdout().lock().flush(), &FAILED);
    FAILED.get().map_or(Ok(()), Err)
}

/// Returns whether a write succeeded. Keeps the first error, unless the reader closed the pipe.
fn succeeded(written: io::Result<()>, failed: &OnceLock<io::Error>) -> bool {
    match written {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => {
            failed.get_or_init(|| error);
            false
        }
    }
}

/// Writes a note for people to standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", Printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        let failed = OnceLock::new();

        assert!(succeeded(Ok(()), &failed));
        assert!(!succeeded(Err(ErrorKind::BrokenPipe.into()), &failed));
        assert!(failed.get().is_none());
        assert!(!succeeded(Err(ErrorKind::StorageFull.into()), &failed));
        assert_eq!(failed.get().unwrap().kind(), ErrorKind::StorageFull);
    }
}
