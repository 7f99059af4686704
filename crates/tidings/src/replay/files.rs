//! Finds the logs and reads them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::names;

/// The longest title of a conversation, in bytes; the contract says so.
const TITLE_MAX: usize = 256;

/// A log and the conversation that it becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Where the log is.
    pub(super) path: PathBuf,
    /// The id of the conversation.
    pub(super) id: String,
    /// The title of the conversation: the name of the file.
    pub(super) title: String,
}

/// Why the logs are not at hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file is missing or cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory has nothing to replay.
    #[error("{}: there is no *.log in this directory", .0.display())]
    NoLogs(PathBuf),
    /// Two files would be one conversation.
    #[error("{} and {} would both be conversation {id}: give one of them, or rename it", one.display(), other.display())]
    SameId {
        /// One file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// The id of both.
        id: String,
    },
}

/// Finds the logs that were asked for, in this order; a directory means every `*.log` in it, sorted.
///
/// # Errors
/// A file is missing, or two files have the same id.
pub(super) fn find(files: &[PathBuf], prefix: &str) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for file in files {
        let meta = fs::metadata(file).map_err(|source| Error::Unreadable { path: file.clone(), source })?;
        let paths = if meta.is_dir() { logs_in(file)? } else { vec![file.clone()] };
        sources.extend(paths.into_iter().map(|path| source(path, prefix)));
    }
    let mut ids = BTreeMap::new();
    for Source { path, id, .. } in &sources {
        if let Some(one) = ids.insert(id, path) {
            return Err(Error::SameId { one: one.clone(), other: path.clone(), id: id.clone() });
        }
    }
    Ok(sources)
}

fn logs_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: directory.to_owned(), source };
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "log") && path.is_file() {
            logs.push(path);
        }
    }
    logs.sort();
    if logs.is_empty() {
        return Err(Error::NoLogs(directory.to_owned()));
    }
    Ok(logs)
}

fn source(path: PathBuf, prefix: &str) -> Source {
    let id = names::conversation_id(prefix, path.file_stem().unwrap_or_default().as_bytes());
    let mut title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    title.truncate(title.floor_char_boundary(TITLE_MAX));
    Source { path, id, title }
}

/// Reads a file that must be there.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Reads a file that may be absent; then it is empty.
pub(super) fn read_if_there(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| Error::Unreadable { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_means_every_log_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.log", "a.log", "a.replies", "README.md"] {
            fs::write(dir.path().join(name), "").unwrap();
        }

        let found = find(&[dir.path().to_owned()], "irc-").unwrap();

        let ids: Vec<_> = found.iter().map(|source| (source.id.as_str(), source.title.as_str())).collect();
        assert_eq!(ids, [("irc-a", "a.log"), ("irc-b", "b.log")]);
    }

    #[test]
    fn two_files_of_one_id_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a.log"), dir.path().join("a.txt"));
        fs::write(&one, "").unwrap();
        fs::write(&other, "").unwrap();

        let text = find(&[one.clone(), other.clone()], "irc-").unwrap_err().to_string();

        assert!(text.contains(one.to_str().unwrap()) && text.contains(other.to_str().unwrap()), "{text}");
        assert!(find(&[one.clone(), one], "irc-").is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(find(&["no/such.log".into()], "").unwrap_err().to_string().starts_with("no/such.log: "));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find(&[dir.path().to_owned()], ""), Err(Error::NoLogs(_))));
        assert!(read_if_there(&dir.path().join("x.replies")).unwrap().is_empty());
    }
}
