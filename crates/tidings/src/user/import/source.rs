//! The input of an import: a file or standard input.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ::csv::ByteRecord;

use super::csv::CsvReader;
use super::identity::Identity;
use super::jsonl::JsonlReader;
use super::line::ImportLine;
use super::request_ids::RequestIds;

/// The format of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Rows, the first of which names the columns.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// The errors of opening an input; nothing has been created then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    /// The format is neither given nor known from the file's extension.
    #[error("{}: unknown format: expected a name that ends in .csv, .jsonl or .ndjson, or --format", .0.display())]
    Format(PathBuf),
    /// The file is not in the given format.
    #[error("{}: {problem}", .path.display())]
    Malformed { path: PathBuf, problem: String },
    /// The import would not be idempotent: neither the file nor the command line identifies the
    /// users.
    #[error(
        "{}: the file has neither a column id nor request_id; give the import an --import-name, so that it can be run \
         again and creates no user twice",
        .0.display()
    )]
    NoImportName(PathBuf),
}

/// An opened input.
pub(super) struct ImportSource {
    /// The lines, each made idempotent.
    pub(super) lines: Box<dyn Iterator<Item = io::Result<ImportLine>> + Send>,
    /// The first row of a CSV file.
    pub(super) header: Option<ByteRecord>,
    /// The identity of the input, `None` for a pipe or a terminal.
    pub(super) identity: Option<Identity>,
    /// The number of lines, `None` for standard input.
    pub(super) total: Option<u64>,
}

impl ImportSource {
    /// Opens the file at `path`, or standard input if `path` is `-`.
    ///
    /// # Errors
    /// The input cannot be imported; nothing has been created.
    pub(super) fn open(path: &Path, format: Option<Format>, import_name: Option<String>) -> Result<Self, Error> {
        let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        let format = format.or_else(|| format_of(path)).ok_or_else(|| Error::Format(path.to_owned()))?;
        let is_standard = path.as_os_str() == "-";
        let (input, metadata): (Box<dyn Read + Send>, _) = if is_standard {
            // A duplicate of the descriptor: `Stdin` gives no metadata.
            let file = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?);
            (Box::new(io::stdin()), file.metadata())
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let metadata = file.metadata();
            (Box::new(file), metadata)
        };
        let identity = Identity::of(&metadata.map_err(unreadable)?);
        let total = match identity {
            Some(_) if !is_standard => Some(count_lines(path).map_err(unreadable)?),
            _ => None,
        };
        let input = BufReader::new(without_byte_order_mark(input).map_err(unreadable)?);
        let request_ids = RequestIds::new(import_name);
        Ok(match format {
            Format::Csv => {
                let rows = CsvReader::open(input).map_err(malformed)?;
                if !rows.has_id_column() && !request_ids.has_import_name() {
                    return Err(Error::NoImportName(path.to_owned()));
                }
                let header = Some(rows.header().clone());
                Self { lines: Box::new(with_request_ids(rows, request_ids)), header, identity, total }
            }
            Format::Jsonl => {
                let users = JsonlReader::new(input).map_err(|unknown| malformed(unknown.to_string()))?;
                Self { lines: Box::new(with_request_ids(users, request_ids)), header: None, identity, total }
            }
        })
    }
}

/// Returns the format that belongs to the file's extension.
fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_ascii_lowercase().to_str()? {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

/// Skips the byte order mark that some programs write at the start of a file.
fn without_byte_order_mark(mut input: impl Read) -> io::Result<impl Read> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut begin = Vec::new();
    (&mut input).take(MARK.len() as u64).read_to_end(&mut begin)?;
    if begin == MARK {
        begin.clear();
    }
    Ok(Cursor::new(begin).chain(input))
}

/// Counts the lines of a file; the last one need not have a line end.
fn count_lines(path: &Path) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let mut lines = 0;
    while file.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

/// Makes each line idempotent.
fn with_request_ids(
    lines: impl Iterator<Item = io::Result<ImportLine>>,
    mut request_ids: RequestIds,
) -> impl Iterator<Item = io::Result<ImportLine>> {
    lines.map(move |line| {
        let mut line = line?;
        if let Ok(request) = &mut line.request
            && let Err(error) = request_ids.assign(request)
        {
            line.request = Err(vec![error]);
        }
        Ok(line)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_extension_determines_the_format() {
        assert_eq!(format_of(Path::new("a/staff.CSV")), Some(Format::Csv));
        assert_eq!(format_of(Path::new("staff.ndjson")), Some(Format::Jsonl));
        assert_eq!(format_of(Path::new("-")), None);
    }

    #[test]
    fn lines_are_counted_with_or_without_a_final_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            fs::write(&file, text).unwrap();
            assert_eq!(count_lines(file.path()).unwrap(), lines, "{text:?}");
        }
    }

    #[test]
    fn a_file_without_ids_needs_an_import_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("staff.csv");
        fs::write(&path, "display_name\nBob\n").unwrap();

        assert!(matches!(ImportSource::open(&path, None, None), Err(Error::NoImportName(_))));
        assert!(ImportSource::open(&path, None, Some("staff".into())).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_skipped_in_every_format() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.csv", "id\nada\n"), ("a.jsonl", "{\"id\": \"ada\"}\n")] {
            for mark in ["", "\u{feff}"] {
                let path = dir.path().join(name);
                fs::write(&path, format!("{mark}{text}")).unwrap();

                let lines: Vec<_> = ImportSource::open(&path, None, None).unwrap().lines.map(Result::unwrap).collect();
                let request = lines[0].request.as_ref().unwrap();
                assert_eq!((lines.len(), request.user.as_ref().unwrap().id.as_str()), (1, "ada"), "{name}");
            }
        }
    }
}
