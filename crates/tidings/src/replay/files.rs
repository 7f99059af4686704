//! Finds and reads the log files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::ids;

/// Maximum length of a conversation's title in bytes, set by the contract.
const TITLE_MAX: usize = 256;

/// A log file, and the id and title of its conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// Id of the conversation.
    pub(super) id: String,
    /// Title of the conversation: the file name.
    pub(super) title: String,
}

/// Error of finding or reading log files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file is missing or cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A directory has no log files.
    #[error("{}: no *.log file in this directory", .0.display())]
    NoLogs(PathBuf),
    /// Two files have the same conversation id.
    #[error(
        "same conversation id: {} and {} would both become {id}; give only one of them, or rename one",
        one.display(),
        other.display()
    )]
    SameId { one: PathBuf, other: PathBuf, id: String },
}

/// Finds the log files of the arguments, in their order. A directory means its `*.log` files,
/// sorted.
///
/// # Errors
/// A file is missing, a directory has no logs, or two files have the same conversation id.
pub(super) fn find(files: &[PathBuf], prefix: &str) -> Result<Vec<LogFile>, Error> {
    let mut logs = Vec::new();
    for file in files {
        let meta = fs::metadata(file).map_err(|source| Error::Unreadable { path: file.clone(), source })?;
        let paths = if meta.is_dir() { logs_in(file)? } else { vec![file.clone()] };
        logs.extend(paths.into_iter().map(|path| log_file(path, prefix)));
    }
    let mut ids = BTreeMap::new();
    for LogFile { path, id, .. } in &logs {
        if let Some(one) = ids.insert(id, path) {
            return Err(Error::SameId { one: one.clone(), other: path.clone(), id: id.clone() });
        }
    }
    Ok(logs)
}

fn logs_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Unreadable { path: directory.to_owned(), source };
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "log") && path.is_file() {
            logs.push(path);
        }
    }
    logs.sort();
    if logs.is_empty() {
        return Err(Error::NoLogs(directory.to_owned()));
    }
    Ok(logs)
}

fn log_file(path: PathBuf, prefix: &str) -> LogFile {
    let id = ids::conversation_id(prefix, path.file_stem().unwrap_or_default().as_bytes());
    let mut title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    title.truncate(title.floor_char_boundary(TITLE_MAX));
    LogFile { path, id, title }
}

/// Reads a whole file; an error names its path.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Reads a file. An absent file reads as empty.
pub(super) fn read_if_present(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| Error::Unreadable { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_means_its_log_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.log", "a.log", "a.replies", "README.md"] {
            fs::write(dir.path().join(name), "").unwrap();
        }

        let found = find(&[dir.path().to_owned()], "irc-").unwrap();

        let ids: Vec<_> = found.iter().map(|file| (file.id.as_str(), file.title.as_str())).collect();
        assert_eq!(ids, [("irc-a", "a.log"), ("irc-b", "b.log")]);
    }

    #[test]
    fn two_files_with_the_same_id_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a.log"), dir.path().join("a.txt"));
        fs::write(&one, "").unwrap();
        fs::write(&other, "").unwrap();

        let text = find(&[one.clone(), other.clone()], "irc-").unwrap_err().to_string();

        assert!(text.contains(one.to_str().unwrap()) && text.contains(other.to_str().unwrap()), "{text}");
        assert!(find(&[one.clone(), one], "irc-").is_err());
    }

    #[test]
    fn a_missing_file_is_named_and_missing_replies_are_empty() {
        assert!(find(&["no/such.log".into()], "").unwrap_err().to_string().starts_with("no/such.log: "));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find(&[dir.path().to_owned()], ""), Err(Error::NoLogs(_))));
        assert!(read_if_present(&dir.path().join("x.replies")).unwrap().is_empty());
    }
}
