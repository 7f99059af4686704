//! Keeps the lines that were refused, in the format of the input, so that they can be corrected and imported again.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, IntoInnerError, Writer};

use super::Error;
use super::line::{Line, Raw};
use super::source::Source;

/// Which file it is, under whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of a file with content, which could be lost; `None` of a pipe or a terminal.
    pub(super) fn of(file: &Metadata) -> Option<Self> {
        file.is_file().then(|| Self { device: file.dev(), inode: file.ino() })
    }
}

/// A file of refused lines. What was in it before stays until the first is refused, or the import is done.
pub(super) struct Rejects {
    path: PathBuf,
    /// The first row of CSV, until it is written.
    header: Option<ByteRecord>,
    file: Kept,
}

enum Kept {
    /// There is no such file yet.
    Absent,
    /// What was in it is still there.
    Old(File),
    /// It has what this import refused, and nothing else.
    New(File),
}

impl Rejects {
    /// Looks whether the file can be written, and changes nothing.
    ///
    /// # Errors
    /// It can not be written, or is the input.
    pub(super) fn open(path: &Path, source: &Source) -> Result<Self, Error> {
        let file = Self::look(path, source.identity)
            .map_err(|problem| Error::Rejects { path: path.to_owned(), problem: problem.to_string() })?;
        Ok(Self { path: path.to_owned(), header: source.header.clone(), file })
    }

    fn look(path: &Path, input: Option<Identity>) -> io::Result<Kept> {
        match OpenOptions::new().write(true).open(path) {
            Ok(file) if input.is_some() && Identity::of(&file.metadata()?) == input => {
                Err(io::Error::other("it is the file that is imported"))
            }
            Ok(file) => Ok(Kept::Old(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                if directory.is_none_or(Path::is_dir) { Ok(Kept::Absent) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a line; it is in the file when this returns.
    pub(super) fn keep(&mut self, line: &Line) -> io::Result<()> {
        let mut text = self.header.take().map_or_else(|| Ok(Vec::new()), |header| row(&header))?;
        match &line.raw {
            Raw::Cells(cells) => text.extend(row(cells)?),
            Raw::Text(line) => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        }
        self.anew()?.write_all(&text)
    }

    /// Every line is done: an earlier file says nothing any more.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.anew().map(drop)
    }

    /// The file without what was in it before.
    fn anew(&mut self) -> io::Result<&mut File> {
        let file = match std::mem::replace(&mut self.file, Kept::Absent) {
            Kept::New(file) => file,
            Kept::Absent => File::create(&self.path)?,
            Kept::Old(file) => {
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                file
            }
        };
        self.file = Kept::New(file);
        match &mut self.file {
            Kept::New(file) => Ok(file),
            Kept::Absent | Kept::Old(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// A row of CSV, with its end.
fn row(cells: &ByteRecord) -> io::Result<Vec<u8>> {
    let mut rows = Writer::from_writer(Vec::new());
    rows.write_byte_record(cells)?;
    rows.into_inner().map_err(IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::line::Flaw;
    use super::*;

    fn source(path: &Path) -> Source {
        Source::open(path, None, None).unwrap()
    }

    fn refused(raw: Raw) -> Line {
        Line { number: 2, raw, wish: Err(vec![Flaw::whole("wrong")]) }
    }

    /// A directory with an input and an earlier file of rejects.
    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (input, rejects) = (dir.path().join("staff.csv"), dir.path().join("rejects.csv"));
        fs::write(&input, "id,bio\nada,x\n").unwrap();
        fs::write(&rejects, "earlier\n").unwrap();
        (dir, input, rejects)
    }

    #[test]
    fn the_input_is_refused_under_any_name_and_stays_as_it_is() {
        let (dir, input, _) = files();
        let (hard, soft) = (dir.path().join("hard.csv"), dir.path().join("soft.csv"));
        fs::hard_link(&input, &hard).unwrap();
        std::os::unix::fs::symlink(&input, &soft).unwrap();

        for name in [&input, &hard, &soft] {
            let error = Rejects::open(name, &source(&input)).err().unwrap().to_string();
            assert!(error.contains("it is the file that is imported"), "{error}");
        }
        assert_eq!(fs::read_to_string(&input).unwrap(), "id,bio\nada,x\n");
    }

    #[test]
    fn an_earlier_file_stays_until_a_line_is_refused_or_all_are_done() {
        let (dir, input, path) = files();
        let read = || fs::read_to_string(&path).unwrap();

        let mut rejects = Rejects::open(&path, &source(&input)).unwrap();
        assert_eq!(read(), "earlier\n");
        rejects.keep(&refused(Raw::Cells(ByteRecord::from(vec!["eve", "a,b"])))).unwrap();
        rejects.keep(&refused(Raw::Text(b"bob,\"b\" c".to_vec()))).unwrap();
        rejects.finish().unwrap();
        assert_eq!(read(), "id,bio\neve,\"a,b\"\nbob,\"b\" c\n");

        Rejects::open(&path, &source(&input)).unwrap().finish().unwrap();
        assert_eq!(read(), "");

        let absent = dir.path().join("absent.csv");
        let mut rejects = Rejects::open(&absent, &source(&input)).unwrap();
        assert!(!absent.exists(), "nothing is refused yet");
        rejects.finish().unwrap();
        assert!(absent.exists());
        assert!(Rejects::open(&dir.path().join("no/where.csv"), &source(&input)).is_err());
    }
}
