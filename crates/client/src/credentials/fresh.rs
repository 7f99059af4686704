//! What is read from files, as they are when it is asked for.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was read is believed: files that are looked at by every call are read once in this time.
const BELIEVED: Duration = Duration::from_secs(1);
/// More than any bundle of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file at this place does not hold this.
pub(super) type Malformed = (usize, String);

/// Makes a value of the contents of all files, in the order of their paths.
type Reader<T> = dyn Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync;

/// A value read from files, the one that they held when they were last right.
pub(super) struct Fresh<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    reader: Box<Reader<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: T,
    contents: Vec<Vec<u8>>,
    looked: Instant,
    failing: bool,
}

impl<T: Clone> Fresh<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The place and the path of the file that is to blame, and why.
    pub(super) fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        reader: impl Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync + 'static,
    ) -> Result<Self, (usize, PathBuf, String)> {
        let contents = read_all(&paths);
        let read = contents.and_then(|contents| Ok((reader(&contents)?, contents)));
        let (value, contents) = read.map_err(|(place, expected)| (place, paths[place].clone(), expected))?;
        let state = Mutex::new(State { value, contents, looked: Instant::now(), failing: false });
        Ok(Self { what, paths, reader: Box::new(reader), state })
    }

    /// The value, at most a second old. If the files are not right, that is told once, and the value is what it was.
    ///
    /// It reads small files in place: callers are held up for as long as that takes, once a second.
    pub(super) fn get(&self) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= BELIEVED {
            self.look(&mut state);
        }
        state.value.clone()
    }

    fn look(&self, state: &mut State<T>) {
        state.looked = Instant::now();
        let read = match read_all(&self.paths) {
            Ok(contents) if contents == state.contents => {
                state.failing = false;
                return;
            }
            contents => contents.and_then(|contents| Ok(((self.reader)(&contents)?, contents))),
        };
        match read {
            Ok((value, contents)) => {
                (state.value, state.contents, state.failing) = (value, contents, false);
                tracing::info!(what = self.what, "read again");
            }
            Err((place, expected)) => {
                if !state.failing {
                    let path = self.paths[place].display();
                    tracing::error!(what = self.what, %path, expected, "can not be used, what was there before stays");
                }
                state.failing = true;
            }
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Malformed> {
    let read =
        |(place, path)| read(path).map_err(|error| (place, format!("expected a file that can be read: {error}")));
    paths.iter().map(PathBuf::as_path).enumerate().map(read).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(content)
}

impl<T> fmt::Debug for Fresh<T> {
    /// Where it comes from; not what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("what", &self.what).field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread::sleep;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_is_what_the_files_hold_or_held_when_they_were_right() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = Fresh::open("number", vec![path.clone()], |contents| {
            String::from_utf8_lossy(&contents[0]).parse().map_err(|_| (0, "expected a number".to_owned()))
        });
        let number: Fresh<u32> = number.unwrap();

        for (written, held) in [(Some("2"), 2), (Some("three"), 2), (None, 2), (Some("4"), 4)] {
            match written {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            sleep(BELIEVED);
            assert_eq!(number.get(), held, "{written:?}");
        }
    }
}
