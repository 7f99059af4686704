//! The exit codes of the process.

/// Exit code: success.
pub(crate) const DONE: u8 = 0;
/// Exit code: the command worked, and its result is negative.
pub(crate) const NO: u8 = 1;
/// Exit code: wrong usage; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// Exit code: a service refused or did not respond, or the result could not be written.
pub(crate) const SERVICE: u8 = 3;
