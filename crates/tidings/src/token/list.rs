//! Appends a line to a token list while services may read it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tidings_server::auth::TokenEntry;

/// Appends the line atomically. Concurrent readers see the list with or without the line;
/// concurrent writers wait.
///
/// # Errors
/// The file is no token list, or cannot be written. It is unchanged.
pub(super) fn append(path: &Path, line: &TokenEntry) -> Result<(), String> {
    // The target of a symbolic link is replaced, not the link.
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

    let new = temporary_path(&path);
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

/// Checks that every line of the file is a token line or a comment.
fn check(text: &str) -> Result<(), String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    for (number, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
        text.parse::<TokenEntry>()
            .map_err(|problem| format!("expected a token list, but in line {number}: {problem}"))?;
    }
    Ok(())
}

/// Returns a path in the directory of the list: a rename is atomic only within a file system.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}
