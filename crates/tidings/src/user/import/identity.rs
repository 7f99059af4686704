//! The identity of a file, by which an output is recognized as the input.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// The identity of a file, independent of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Returns the identity of a regular file, `None` for a pipe or a terminal, which has no
    /// content to overwrite.
    pub(super) fn of(file: &Metadata) -> Option<Self> {
        file.is_file().then(|| Self { device: file.dev(), inode: file.ino() })
    }
}
