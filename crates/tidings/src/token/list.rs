//! Adds a line to a list of tokens that services read at any moment.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tidings_server::auth::Line;

/// Adds the line. Whoever reads the list meanwhile sees it with the line or without; who adds another line waits.
///
/// # Errors
/// The list is none, or can not be written; it is as it was.
pub(super) fn append(path: &Path, line: &Line) -> Result<(), String> {
    // Where a link leads is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let locked = File::open(dir).map_err(|error| error.to_string())?;
    flock(&locked, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;

    let (mut text, permissions) = match fs::read_to_string(&path) {
        Ok(text) => (text, fs::metadata(&path).ok().map(|file| file.permissions())),
        Err(error) if error.kind() == ErrorKind::NotFound => (String::new(), None),
        Err(error) => return Err(error.to_string()),
    };
    check(&text)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &line.to_string();
    text.push('\n');

    let new = beside(&path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        error.to_string()
    })
}

/// What is no list must not become one.
fn check(text: &str) -> Result<(), String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    for (number, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
        text.parse::<Line>()
            .map_err(|problem| format!("expected a list of tokens, but in line {number}: {problem}"))?;
    }
    Ok(())
}

/// A name beside the list: only within a directory is a rename at once.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}
