//! Where the command speaks.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes a result to standard output.
///
/// A reader who has seen enough (`tidings call --list | head`) is no error, which is why this is not `println!`.
pub(crate) fn result(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes one of many results to standard output. Returns false if nobody reads them any more.
pub(crate) fn stream(text: impl Display) -> bool {
    writeln!(io::stdout().lock(), "{text}").is_ok()
}

/// Writes a word for people to standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
