//! Values that are reloaded when their files change.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shortest time between two reads of the files, which every call may trigger.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file in bytes: more than any bundle of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Mark at the beginning of a file that some editors write to mark its encoding.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Index of an invalid file, and the contents that were expected of it.
pub(super) type FileError = (usize, String);

/// Parses the contents of all files, in the order of their paths.
type ParseFn<T> = dyn Fn(&[Vec<u8>]) -> Result<T, FileError> + Send + Sync;

/// A value parsed from files: the current contents, or the last valid ones.
pub(super) struct Reloaded<T> {
    name: &'static str,
    paths: Vec<PathBuf>,
    parse: Box<ParseFn<T>>,
    state: Mutex<CachedFiles<T>>,
}

struct CachedFiles<T> {
    value: T,
    contents: Vec<Vec<u8>>,
    checked_at: Instant,
    /// True if the last read failed, so that a lasting failure is logged once.
    failing: bool,
}

impl<T: Clone> Reloaded<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Index and path of the invalid file, and the contents that were expected of it.
    pub(super) fn open(
        name: &'static str,
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, (usize, PathBuf, String)> {
        let contents = read_all(&paths);
        let read = contents.and_then(|contents| Ok((parse(&contents)?, contents)));
        let (value, contents) = read.map_err(|(index, expected)| (index, paths[index].clone(), expected))?;
        let state = Mutex::new(CachedFiles { value, contents, checked_at: Instant::now(), failing: false });
        Ok(Self { name, paths, parse: Box::new(parse), state })
    }

    /// Returns the value, at most a second old. With invalid files, it is the last valid value.
    ///
    /// Reads the files synchronously: they are small, and one caller a second waits for them.
    pub(super) fn get(&self) -> T {
        let mut state = self.state.lock();
        if state.checked_at.elapsed() >= CHECK_INTERVAL {
            self.reload(&mut state);
        }
        state.value.clone()
    }

    fn reload(&self, state: &mut CachedFiles<T>) {
        state.checked_at = Instant::now();
        let read = match read_all(&self.paths) {
            Ok(contents) if contents == state.contents => {
                state.failing = false;
                return;
            }
            contents => contents.and_then(|contents| Ok(((self.parse)(&contents)?, contents))),
        };
        match read {
            Ok((value, contents)) => {
                (state.value, state.contents, state.failing) = (value, contents, false);
                tracing::info!(credentials = self.name, "reloaded");
            }
            Err((index, expected)) => {
                if !state.failing {
                    let path = self.paths[index].display();
                    tracing::error!(credentials = self.name, %path, expected, "reload failed; the last valid contents stay in use");
                }
                state.failing = true;
            }
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, FileError> {
    let read =
        |(index, path)| read(path).map_err(|error| (index, format!("expected a file that can be read: {error}")));
    paths.iter().map(PathBuf::as_path).enumerate().map(read).collect()
}

/// Reads a file, without the byte order mark that an editor may have put at its beginning.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

impl<T> fmt::Debug for Reloaded<T> {
    /// Writes name and paths, and never the value, which is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("name", &self.name).field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread::sleep;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_last_valid_contents_are_kept() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = Reloaded::open("number", vec![path.clone()], |contents| {
            String::from_utf8_lossy(&contents[0]).parse().map_err(|_| (0, "expected a number".to_owned()))
        });
        let number: Reloaded<u32> = number.unwrap();

        for (written, held) in
            [(Some("2"), 2), (Some("\u{feff}3"), 3), (Some("2"), 2), (Some("three"), 2), (None, 2), (Some("4"), 4)]
        {
            match written {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            sleep(CHECK_INTERVAL);
            assert_eq!(number.get(), held, "{written:?}");
        }
    }
}
