//! Options of a stack.

use std::path::PathBuf;

use crate::binaries::SearchPath;

/// Directory of the data and logs of a stack.
#[derive(Debug, Clone)]
pub enum Dir {
    /// Created if absent and kept for the next start. Only one process at a time can own it.
    Kept(PathBuf),
    /// A new directory that is removed when the stack ends.
    Temporary,
}

/// Options of a stack.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of data and logs.
    pub dir: Dir,
    /// Removes the data of earlier starts first.
    pub fresh: bool,
    /// Turns `fsync` on: committed rows survive a crash of the machine, not only of the server.
    pub durable: bool,
    /// Directories of the server programs.
    pub search_path: SearchPath,
}

impl Options {
    /// A durable stack that keeps its data in `dir`.
    pub fn kept(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Dir::Kept(dir.into()), fresh: false, durable: true, search_path: SearchPath::default() }
    }

    /// A stack in a temporary directory, without `fsync`.
    pub fn temporary() -> Self {
        Self { dir: Dir::Temporary, fresh: false, durable: false, search_path: SearchPath::default() }
    }
}
