//! The file of refused lines, in the format of the input: to be corrected and imported again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, IntoInnerError, Writer};

use super::error::Error;
use super::identity::Identity;
use super::line::{ImportLine, RawLine};
use super::source::ImportSource;

/// The file of refused lines. Earlier content stays until the first line is refused, or until the
/// import is completed.
pub(super) struct Rejects {
    path: PathBuf,
    /// The first row of a CSV input; `None` once it is written.
    header: Option<ByteRecord>,
    file: RejectsFile,
}

enum RejectsFile {
    /// The file does not exist yet.
    Absent,
    /// The file has its earlier content.
    Old(File),
    /// The file has the refused lines of this import only.
    New(File),
}

impl Rejects {
    /// Checks that the file can be written, without changing it.
    ///
    /// # Errors
    /// The file cannot be written, or is the input.
    pub(super) fn open(path: &Path, source: &ImportSource) -> Result<Self, Error> {
        let file = Self::check(path, source.identity)
            .map_err(|problem| Error::Rejects { path: path.to_owned(), problem: problem.to_string() })?;
        Ok(Self { path: path.to_owned(), header: source.header.clone(), file })
    }

    fn check(path: &Path, input: Option<Identity>) -> io::Result<RejectsFile> {
        match OpenOptions::new().write(true).open(path) {
            Ok(file) if input.is_some() && Identity::of(&file.metadata()?) == input => {
                Err(io::Error::other("the file is the input of the import"))
            }
            Ok(file) => Ok(RejectsFile::Old(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                if directory.is_none_or(Path::is_dir) { Ok(RejectsFile::Absent) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Appends a line. The line is in the file when this returns.
    pub(super) fn append(&mut self, line: &ImportLine) -> io::Result<()> {
        let mut text = self.header.take().map_or_else(|| Ok(Vec::new()), |header| row(&header))?;
        match &line.raw {
            RawLine::Cells(cells) => text.extend(row(cells)?),
            RawLine::Text(line) => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        }
        self.truncated()?.write_all(&text)
    }

    /// Discards earlier content at the end of a completed import.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.truncated().map(drop)
    }

    /// Returns the file without its earlier content.
    fn truncated(&mut self) -> io::Result<&mut File> {
        let file = match std::mem::replace(&mut self.file, RejectsFile::Absent) {
            RejectsFile::New(file) => file,
            RejectsFile::Absent => File::create(&self.path)?,
            RejectsFile::Old(file) => {
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                file
            }
        };
        self.file = RejectsFile::New(file);
        match &mut self.file {
            RejectsFile::New(file) => Ok(file),
            RejectsFile::Absent | RejectsFile::Old(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Renders a row of CSV, including its line end.
fn row(cells: &ByteRecord) -> io::Result<Vec<u8>> {
    let mut rows = Writer::from_writer(Vec::new());
    rows.write_byte_record(cells)?;
    rows.into_inner().map_err(IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::line::LineError;
    use super::*;

    fn source(path: &Path) -> ImportSource {
        ImportSource::open(path, None, None).unwrap()
    }

    fn refused(raw: RawLine) -> ImportLine {
        ImportLine { number: 2, raw, request: Err(vec![LineError::whole("wrong")]) }
    }

    /// Creates a directory with an input and an earlier file of rejects.
    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (input, rejects) = (dir.path().join("staff.csv"), dir.path().join("rejects.csv"));
        fs::write(&input, "id,bio\nada,x\n").unwrap();
        fs::write(&rejects, "earlier\n").unwrap();
        (dir, input, rejects)
    }

    #[test]
    fn the_input_is_refused_under_any_name_and_stays_unchanged() {
        let (dir, input, _) = files();
        let (hard, soft) = (dir.path().join("hard.csv"), dir.path().join("soft.csv"));
        fs::hard_link(&input, &hard).unwrap();
        std::os::unix::fs::symlink(&input, &soft).unwrap();

        for name in [&input, &hard, &soft] {
            let error = Rejects::open(name, &source(&input)).err().unwrap().to_string();
            assert!(error.contains("the file is the input of the import"), "{error}");
        }
        assert_eq!(fs::read_to_string(&input).unwrap(), "id,bio\nada,x\n");
    }

    #[test]
    fn earlier_content_stays_until_a_refused_line_or_the_end() {
        let (dir, input, path) = files();
        let read = || fs::read_to_string(&path).unwrap();

        let mut rejects = Rejects::open(&path, &source(&input)).unwrap();
        assert_eq!(read(), "earlier\n");
        rejects.append(&refused(RawLine::Cells(ByteRecord::from(vec!["eve", "a,b"])))).unwrap();
        rejects.append(&refused(RawLine::Text(b"bob,\"b\" c".to_vec()))).unwrap();
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
