//! Keeps the lines that were refused, in the format of the input, so that they can be corrected and imported again.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use ::csv::{ByteRecord, Writer, WriterBuilder};

use super::Error;
use super::line::{Line, Raw};
use super::source::Source;

/// A file of refused lines; nothing is in it before the first.
pub(super) struct Rejects {
    /// The first row of CSV, until it is written.
    header: Option<ByteRecord>,
    file: Kept,
}

enum Kept {
    Rows(Box<Writer<File>>),
    Lines(BufWriter<File>),
}

impl Rejects {
    /// Makes the file anew.
    ///
    /// # Errors
    /// It can not be written, or is the input.
    pub(super) fn create(path: &Path, input: &Path, source: &Source) -> Result<Self, Error> {
        let rejected = |problem| Error::Rejects { path: path.to_owned(), problem };
        if let (Ok(path), Ok(input)) = (fs::canonicalize(path), fs::canonicalize(input))
            && path == input
        {
            return Err(rejected("it is the file that is imported".to_owned()));
        }
        let file = File::create(path).map_err(|error| rejected(error.to_string()))?;
        let file = match source.header {
            Some(_) => Kept::Rows(Box::new(WriterBuilder::new().flexible(true).from_writer(file))),
            None => Kept::Lines(BufWriter::new(file)),
        };
        Ok(Self { header: source.header.clone(), file })
    }

    /// Keeps a line; it is in the file when this returns.
    pub(super) fn keep(&mut self, line: &Line) -> io::Result<()> {
        match (&mut self.file, &line.raw) {
            (Kept::Rows(rows), Raw::Cells(row)) => {
                if let Some(header) = self.header.take() {
                    rows.write_byte_record(&header)?;
                }
                rows.write_byte_record(row)?;
                rows.flush()
            }
            (Kept::Lines(lines), Raw::Text(text)) => {
                lines.write_all(text)?;
                lines.write_all(b"\n")?;
                lines.flush()
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
