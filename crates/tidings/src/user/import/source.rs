//! Where the lines of an import come from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use ::csv::ByteRecord;

use super::csv::Rows;
use super::jsonl::Objects;
use super::line::Line;
use super::name::Names;

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
        let mut total = None;
        let input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(unreadable)?;
            if file.metadata().map_err(unreadable)?.is_file() {
                total = Some(count(path).map_err(unreadable)?);
            }
            Box::new(file)
        };
        let input = BufReader::new(input);
        let names = Names::new(import_name);
        Ok(match format {
            Format::Csv => {
                let rows = Rows::open(input).map_err(malformed)?;
                if !rows.has_names() && !names.can_name() {
                    return Err(Error::Nameless(path.to_owned()));
                }
                let header = Some(rows.header().clone());
                Self { lines: Box::new(named(rows, names)), header, total }
            }
            Format::Jsonl => {
                let objects = Objects::new(input).map_err(|unknown| malformed(unknown.to_string()))?;
                Self { lines: Box::new(named(objects, names)), header: None, total }
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
}
