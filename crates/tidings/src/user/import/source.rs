//! Where the lines of an import come from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ::csv::ByteRecord;

use super::csv::Rows;
use super::jsonl::Objects;
use super::line::Line;
use super::name::Names;
use super::rejects::Identity;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Rows, of which the first names the columns.
    Csv,
    /// A JSON object on each line.
    Jsonl,
}

/// Why a file can not be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It can not be read.
    #[error("can not read {}: {cause}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nobody said what it holds.
    #[error("{}: expected a name that ends in .csv, .jsonl or .ndjson; else give --format", .0.display())]
    Format(PathBuf),
    /// It is not what it is said to be.
    #[error("{}: {problem}", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Its users could not be known again.
    #[error(
        "{}: there is no column id or request_id by which users are known again; give the import an --import-name, under \
         which it can be run again and creates nobody twice",
        .0.display()
    )]
    Nameless(PathBuf),
}

/// The lines of a file.
pub(super) struct Source {
    /// Each line, safe to repeat.
    pub(super) lines: Box<dyn Iterator<Item = io::Result<Line>> + Send>,
    /// The first row of CSV.
    pub(super) header: Option<ByteRecord>,
    /// Which file is read, if that is known.
    pub(super) identity: Option<Identity>,
    /// The number of the last line, if the file can be read twice.
    pub(super) total: Option<u64>,
}

impl Source {
    /// Opens a file, or standard input.
    ///
    /// # Errors
    /// Why it can not be imported; nothing was done then.
    pub(super) fn open(path: &Path, format: Option<Format>, import_name: Option<String>) -> Result<Self, Error> {
        let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        let format = format.or_else(|| by_ending(path)).ok_or_else(|| Error::Format(path.to_owned()))?;
        let is_standard = path.as_os_str() == "-";
        let (input, metadata): (Box<dyn Read + Send>, _) = if is_standard {
            // A descriptor of its own, to ask it what it is.
            let file = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?);
            (Box::new(io::stdin()), file.metadata())
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let metadata = file.metadata();
            (Box::new(file), metadata)
        };
        let identity = Identity::of(&metadata.map_err(unreadable)?);
        let total = match identity {
            Some(_) if !is_standard => Some(count(path).map_err(unreadable)?),
            _ => None,
        };
        let input = BufReader::new(unmarked(input).map_err(unreadable)?);
        let names = Names::new(import_name);
        Ok(match format {
            Format::Csv => {
                let rows = Rows::open(input).map_err(malformed)?;
                if !rows.has_names() && !names.can_name() {
                    return Err(Error::Nameless(path.to_owned()));
                }
                let header = Some(rows.header().clone());
                Self { lines: Box::new(named(rows, names)), header, identity, total }
            }
            Format::Jsonl => {
                let objects = Objects::new(input).map_err(|unknown| malformed(unknown.to_string()))?;
                Self { lines: Box::new(named(objects, names)), header: None, identity, total }
            }
        })
    }
}

fn by_ending(path: &Path) -> Option<Format> {
    match path.extension()?.to_ascii_lowercase().to_str()? {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

/// What follows the byte order mark that some programs begin a file with.
fn unmarked(mut input: impl Read) -> io::Result<impl Read> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut begin = Vec::new();
    (&mut input).take(MARK.len() as u64).read_to_end(&mut begin)?;
    if begin == MARK {
        begin.clear();
    }
    Ok(Cursor::new(begin).chain(input))
}

/// How many lines a file has.
fn count(path: &Path) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let mut lines = 0;
    while file.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

/// Makes each line safe to repeat.
fn named(lines: impl Iterator<Item = io::Result<Line>>, mut names: Names) -> impl Iterator<Item = io::Result<Line>> {
    lines.map(move |line| {
        let mut line = line?;
        if let Ok(wish) = &mut line.wish
            && let Err(flaw) = names.name(wish)
        {
            line.wish = Err(vec![flaw]);
        }
        Ok(line)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_ending_says_what_a_file_holds() {
        assert_eq!(by_ending(Path::new("a/staff.CSV")), Some(Format::Csv));
        assert_eq!(by_ending(Path::new("staff.ndjson")), Some(Format::Jsonl));
        assert_eq!(by_ending(Path::new("-")), None);
    }

    #[test]
    fn lines_are_counted_whether_or_not_the_last_has_an_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            fs::write(&file, text).unwrap();
            assert_eq!(count(file.path()).unwrap(), lines, "{text:?}");
        }
    }

    #[test]
    fn rows_that_could_not_be_known_again_are_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("staff.csv");
        fs::write(&path, "display_name\nBob\n").unwrap();

        assert!(matches!(Source::open(&path, None, None), Err(Error::Nameless(_))));
        assert!(Source::open(&path, None, Some("staff".into())).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_in_every_format() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.csv", "id\nada\n"), ("a.jsonl", "{\"id\": \"ada\"}\n")] {
            for mark in ["", "\u{feff}"] {
                let path = dir.path().join(name);
                fs::write(&path, format!("{mark}{text}")).unwrap();

                let lines: Vec<_> = Source::open(&path, None, None).unwrap().lines.map(Result::unwrap).collect();
                let wish = lines[0].wish.as_ref().unwrap();
                assert_eq!((lines.len(), wish.user.as_ref().unwrap().id.as_str()), (1, "ada"), "{name}");
            }
        }
    }
}
