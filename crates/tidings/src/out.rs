//! Where the command speaks.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

/// The first write of a result that failed. The process has one standard output, and one end that tells of it.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Writes a result to standard output.
///
/// A reader who has seen enough (`tidings call --list | head`) is no error, which is why this is not `println!`; what else
/// fails is told by [`end`].
pub(crate) fn result(text: impl Display) {
    stream(text);
}

/// Writes one of many results to standard output. Returns false if no more can be written.
pub(crate) fn stream(text: impl Display) -> bool {
    went(writeln!(io::stdout().lock(), "{text}"), &FAILED)
}

/// Ends the output.
///
/// # Errors
/// Why not all of it was written, though somebody wanted it.
pub(crate) fn end() -> Result<(), &'static io::Error> {
    went(io::stdout().lock().flush(), &FAILED);
    FAILED.get().map_or(Ok(()), Err)
}

/// Whether it went well; else keeps why, unless the reader has gone.
fn went(written: io::Result<()>, failed: &OnceLock<io::Error>) -> bool {
    match written {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => {
            failed.get_or_init(|| error);
            false
        }
    }
}

/// Writes a word for people to standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_who_has_gone_is_no_failure() {
        let failed = OnceLock::new();

        assert!(went(Ok(()), &failed));
        assert!(!went(Err(ErrorKind::BrokenPipe.into()), &failed));
        assert!(failed.get().is_none());
        assert!(!went(Err(ErrorKind::StorageFull.into()), &failed));
        assert_eq!(failed.get().unwrap().kind(), ErrorKind::StorageFull);
    }
}
