//! Decouples log lines from standard error: a bounded buffer, and a thread that writes it.
//!
//! Standard error is often a pipe. A write to a full pipe blocks until its reader continues, so a
//! log collector that stops would stop every call. Callers therefore only append to the buffer.
//! Lines that do not fit are dropped and counted, and one line reports them once the sink accepts
//! writes again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use metrics::counter;
use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::json_fields::json_string;

/// Capacity of the buffer: some thousand lines, which bridge a pause of the reader of a few seconds
/// at the usual rate.
const BYTES_MAX: usize = 1 << 20;
/// Memory of an empty line in the queue; keeps short lines from exceeding the capacity.
const LINE_OVERHEAD: usize = 64;
/// Longest time without progress in [`LogBuffer::flush`]: a sink that is not read must not keep
/// the process alive.
const STALL_MAX: Duration = Duration::from_secs(1);
/// Pause after a sink in non-blocking mode refuses a write.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Format of the lines that the buffer itself writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    Text,
    Json,
}

/// A bounded queue of log lines in front of a sink. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LogBuffer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<LineQueue>,
    /// Notified when a line was added.
    added: Condvar,
    /// Notified when lines were written.
    progressed: Condvar,
    format: LineFormat,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct LineQueue {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Lines dropped since the last report.
    dropped: u64,
    /// True while the thread writes lines that it has taken.
    writing: bool,
    /// Number of lines that the sink has accepted.
    written: u64,
}

impl LogBuffer {
    /// Starts the thread that writes to the sink.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(sink: impl Write + Send + 'static, format: LineFormat) -> io::Result<Self> {
        Self::with_capacity(sink, format, BYTES_MAX)
    }

    fn with_capacity(sink: impl Write + Send + 'static, format: LineFormat, bytes_max: usize) -> io::Result<Self> {
        let shared =
            Shared { queue: Mutex::default(), added: Condvar::new(), progressed: Condvar::new(), format, bytes_max };
        let shared = Arc::new(shared);
        let writer = Arc::clone(&shared);
        // Not joined: it may be blocked in a write when the process ends.
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.write_all_to(sink))?;
        Ok(Self(shared))
    }

    /// Appends a line, or drops it if the buffer is full. Never waits for the sink.
    pub(super) fn push(&self, line: &[u8]) {
        let size = line.len() + LINE_OVERHEAD;
        let mut queue = self.0.queue.lock();
        if queue.bytes + size > self.0.bytes_max {
            queue.dropped += 1;
            drop(queue);
            self.0.added.notify_one();
            count_dropped(1);
            return;
        }
        queue.bytes += size;
        queue.lines.push_back(line.into());
        drop(queue);
        self.0.added.notify_one();
    }

    /// Appends a line that no log filter affects.
    pub(super) fn push_message(&self, level: &str, message: &str) {
        self.push(&self.0.format.line(level, message, None));
    }

    /// Waits until the sink has accepted all lines. Gives up when it accepts none for a second.
    pub(super) fn flush(&self) {
        let mut queue = self.0.queue.lock();
        while queue.writing || !queue.lines.is_empty() || queue.dropped > 0 {
            let written = queue.written;
            let timed_out = self.0.progressed.wait_for(&mut queue, STALL_MAX).timed_out();
            if timed_out && queue.written == written {
                return;
            }
        }
    }
}

impl Shared {
    /// Writes the lines in order, each in one piece, as long as the process lives.
    fn write_all_to(&self, mut sink: impl Write) {
        loop {
            let mut queue = self.queue.lock();
            queue.writing = false;
            while queue.lines.is_empty() && queue.dropped == 0 {
                self.progressed.notify_all();
                self.added.wait(&mut queue);
            }
            queue.writing = true;
            let lines = mem::take(&mut queue.lines);
            let dropped = mem::take(&mut queue.dropped);
            queue.bytes = 0;
            drop(queue);
            for line in lines {
                self.write(&mut sink, &line);
            }
            if dropped > 0 {
                // The dropped lines came after the lines just written.
                let report = "log lines dropped: standard error was not read in time";
                self.write(&mut sink, &self.format.line("WARN", report, Some(dropped)));
            }
        }
    }

    /// Writes one line. A line that the sink refuses is lost and counted.
    fn write(&self, sink: &mut impl Write, line: &[u8]) {
        let mut rest = line;
        while !rest.is_empty() {
            match sink.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Err(_) => break,
            }
        }
        if !rest.is_empty() {
            count_dropped(1);
        }
        self.queue.lock().written += 1;
        self.progressed.notify_all();
    }
}

fn count_dropped(lines: u64) {
    counter!("tidings_log_lines_dropped_total", "cause" => "stderr").increment(lines);
}

impl LineFormat {
    /// Formats a line in the layout of the other lines of the log.
    fn line(self, level: &str, message: &str, lines: Option<u64>) -> Vec<u8> {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        let count = lines.map(|lines| match self {
            Self::Text => format!(" lines={lines}"),
            Self::Json => format!(",\"lines\":{lines}"),
        });
        let count = count.unwrap_or_default();
        let target = "tidings_server::telemetry";
        let line = match self {
            Self::Text => format!("{time} {level:>5} {target}: {message}{count}\n"),
            Self::Json => {
                let message = json_string(message);
                format!(
                    "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":{message}{count},\"target\":\"{target}\"}}\n"
                )
            }
        };
        line.into_bytes()
    }
}

impl Write for LogBuffer {
    /// Takes a whole line; the formatter writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogBuffer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    /// Lines of 1 KiB, twice as many as pipe and buffer can hold.
    const LINES: usize = 1000;
    const CAPACITY: usize = 256 << 10;

    fn line(number: usize) -> String {
        format!("{number:>1023}\n")
    }

    /// The lines before a gap arrive, then the report of its number of lines. There are two gaps if
    /// the thread starts late.
    #[test]
    fn a_full_pipe_blocks_no_line_and_drops_are_reported() {
        let (reader, sink) = io::pipe().unwrap();
        let buffer = LogBuffer::with_capacity(sink, LineFormat::Json, CAPACITY).unwrap();

        for number in 0..LINES {
            buffer.push(line(number).as_bytes()); // the pipe is not read
        }

        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut written, mut dropped) = (0, 0);
        while written + dropped < LINES {
            let line = lines.next().unwrap();
            if !line.starts_with('{') {
                written += 1;
                continue;
            }
            let report: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(report["level"], "WARN");
            assert_eq!(report["message"], "log lines dropped: standard error was not read in time");
            dropped += usize::try_from(report["lines"].as_u64().unwrap()).unwrap();
        }
        assert!(dropped > 0 && written >= CAPACITY / (1024 + LINE_OVERHEAD), "{written}");
        buffer.push(b"afterwards\n");
        assert_eq!(lines.next().unwrap(), "afterwards");
    }

    #[test]
    fn a_flush_waits_for_the_reader_but_not_for_ever() {
        let (reader, sink) = io::pipe().unwrap();
        let buffer = LogBuffer::with_capacity(sink, LineFormat::Text, CAPACITY).unwrap();
        for number in 0..LINES / 8 {
            buffer.push(line(number).as_bytes());
        }
        buffer.flush(); // returns although the pipe is not read

        let reading = thread::spawn(move || BufReader::new(reader).lines().take(LINES / 8).count());
        buffer.flush();
        assert_eq!(reading.join().unwrap(), LINES / 8);
    }
}
