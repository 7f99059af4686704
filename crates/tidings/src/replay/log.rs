//! Parses IRC logs.

use super::ids;

/// Maximum length of a message's text in bytes, set by the contract.
const TEXT_MAX: usize = 32_768;

/// A parsed log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ChatLog {
    /// The lines that are messages, in order.
    pub(super) lines: Vec<LogLine>,
    /// Number of lines of any kind.
    pub(super) total: usize,
    /// Number of system lines: `=== ...`.
    pub(super) system: usize,
    /// Lines of no known form.
    pub(super) malformed: SkippedLines,
    /// Bytes of messages that are not UTF-8. Each run of them is replaced by one U+FFFD.
    pub(super) replaced_bytes: usize,
}

/// A line that is a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogLine {
    /// Line number, from 0 over all lines.
    pub(super) number: usize,
    /// Time as written: `12:59`.
    pub(super) time: String,
    /// Nick of the sender, as spelled.
    pub(super) nick: String,
    /// User id of the sender.
    pub(super) user_id: String,
    pub(super) kind: LineKind,
    /// Text of the message; may be empty.
    pub(super) text: String,
}

/// Form of a message line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// `<nick> text`
    Text,
    /// ` * nick text`
    Action,
}

impl LineKind {
    /// Returns the value of the message attribute `kind`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Action => "action",
        }
    }
}

/// Lines that were skipped because they are malformed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SkippedLines {
    /// The first skipped lines: line number and error.
    pub(super) first: Vec<(usize, LogLineError)>,
    /// Number of skipped lines.
    pub(super) count: usize,
}

impl SkippedLines {
    /// Maximum number of lines kept in `first`: in a file that is no log, every line is malformed.
    const LISTED_MAX: usize = 20;

    /// Adds a skipped line.
    pub(super) fn push(&mut self, line: usize, error: LogLineError) {
        if self.first.len() < Self::LISTED_MAX {
            self.first.push((line, error));
        }
        self.count += 1;
    }
}

/// Error of a malformed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogLineError {
    /// The line has no form of a log line.
    #[error("expected `[HH:MM] <nick> text`, `[HH:MM]  * nick action` or `=== ...`")]
    Shape,
    /// The nick is empty.
    #[error("the nick is empty")]
    NoNick,
    /// The user id of the nick would be too long.
    #[error("the nick is too long: its user id would exceed 64 bytes")]
    LongNick,
    /// The text exceeds the limit of a message.
    #[error("the text is too long: a message has at most 32,768 bytes")]
    LongText,
    /// Postgres cannot store the text.
    #[error("the line contains a NUL character, which cannot be stored")]
    Nul,
    /// A line of a `.replies` file is malformed.
    #[error("expected `A B -`: line B replies to line A, and A is not after B")]
    Reply,
}

/// Parses a log. A line ends with `\n` or `\r\n`; no line follows the last line end.
pub(super) fn parse(bytes: &[u8]) -> ChatLog {
    let mut log = ChatLog::default();
    for (number, line) in lines(bytes) {
        log.total += 1;
        if line.starts_with(b"===") {
            log.system += 1;
            continue;
        }
        match parse_line(number, &decode(line)) {
            Ok(message) => {
                log.lines.push(message);
                log.replaced_bytes += invalid_bytes(line);
            }
            Err(error) => log.malformed.push(number, error),
        }
    }
    log
}

/// Iterates over the lines of a file, numbered from 0, without their line ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let lines = (!bytes.is_empty()).then(|| body.split(|byte| *byte == b'\n'));
    lines.into_iter().flatten().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate()
}

/// Decodes a line as UTF-8. Invalid bytes are replaced by U+FFFD.
pub(super) fn decode(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(line)
}

fn invalid_bytes(line: &[u8]) -> usize {
    line.utf8_chunks().map(|chunk| chunk.invalid().len()).sum()
}

fn parse_line(number: usize, line: &str) -> Result<LogLine, LogLineError> {
    if line.contains('\0') {
        return Err(LogLineError::Nul);
    }
    let (time, message) = parse_time(line).ok_or(LogLineError::Shape)?;
    let (kind, nick, text) = if let Some(message) = message.strip_prefix(" <") {
        let (nick, text) = message.split_once('>').ok_or(LogLineError::Shape)?;
        let text = if text.is_empty() { text } else { text.strip_prefix(' ').ok_or(LogLineError::Shape)? };
        (LineKind::Text, nick, text)
    } else {
        let message = message.strip_prefix("  * ").ok_or(LogLineError::Shape)?;
        let (nick, text) = message.split_once(' ').unwrap_or((message, ""));
        (LineKind::Action, nick, text)
    };
    if nick.is_empty() {
        return Err(LogLineError::NoNick);
    }
    if text.len() > TEXT_MAX {
        return Err(LogLineError::LongText);
    }
    Ok(LogLine {
        number,
        time: time.to_owned(),
        nick: nick.to_owned(),
        user_id: ids::user_id(nick).ok_or(LogLineError::LongNick)?,
        kind,
        text: text.to_owned(),
    })
}

/// Splits `[12:59] rest` into `12:59` and ` rest`. Accepts any digits: the time is stored as
/// written.
fn parse_time(line: &str) -> Option<(&str, &str)> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes) = time.split_once(':')?;
    (digits(hours) && digits(minutes)).then_some((time, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_one(line: &str) -> LogLine {
        let mut log = parse(line.as_bytes());
        assert_eq!(log.malformed.count, 0, "{line}");
        log.lines.remove(0)
    }

    fn error_of(line: &[u8]) -> LogLineError {
        parse(line).malformed.first[0].1
    }

    #[test]
    fn a_text_line_has_time_nick_and_text() {
        let line = parse_one("[12:59] <|trey|> hello <you>  ");

        assert_eq!((line.time.as_str(), line.nick.as_str(), line.kind), ("12:59", "|trey|", LineKind::Text));
        assert_eq!(line.text, "hello <you>  ");
        assert_eq!(line.user_id, "irc-~7ctrey~7c");
    }

    #[test]
    fn the_nick_of_an_action_ends_at_the_first_space() {
        let line = parse_one("[09:41]  * Ada_ waves at everybody");

        assert_eq!(
            (line.nick.as_str(), line.text.as_str(), line.kind),
            ("Ada_", "waves at everybody", LineKind::Action)
        );
        assert_eq!(parse_one("[09:41]  * ada").text, "");
    }

    #[test]
    fn the_text_of_a_message_may_be_empty() {
        assert_eq!(parse_one("[12:15] <opteron>").text, "");
        assert_eq!(parse_one("[12:15] <opteron> ").text, "");
        assert_eq!(parse_one("[12:15] <opteron>  ").text, " ");
    }

    #[test]
    fn lines_of_all_kinds_are_numbered_from_0() {
        let log = parse(b"=== topic\nnonsense\n[00:00] <a> b\n\n[00:01] <a> c");

        assert_eq!((log.total, log.system, log.malformed.count), (5, 1, 2));
        assert_eq!(log.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(log.malformed.first, [(1, LogLineError::Shape), (3, LogLineError::Shape)]);
    }

    #[test]
    fn no_line_follows_the_last_line_end() {
        assert_eq!(parse(b"").total, 0);
        assert_eq!(parse(b"[00:00] <a> b\n").total, 1);
        assert_eq!(parse(b"\n").total, 1);
    }

    #[test]
    fn a_carriage_return_before_the_line_end_belongs_to_it() {
        let log = parse(b"[00:00] <a> b\r\n[00:00] <a> \rc\r\n");

        assert_eq!(log.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["b", "\rc"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_counted() {
        let log = parse(b"[00:00] <a> caf\xe9 \xf0\x9f!\n=== \xff\n");

        assert_eq!(log.lines[0].text, "caf\u{fffd} \u{fffd}!");
        assert_eq!(log.replaced_bytes, 3);
    }

    #[test]
    fn a_malformed_line_is_skipped_with_its_error() {
        assert_eq!(error_of(b"[00:00] <a> \0"), LogLineError::Nul);
        assert_eq!(error_of(b"[00:00] <> b"), LogLineError::NoNick);
        assert_eq!(error_of(format!("[00:00] <{}> b", "n".repeat(61)).as_bytes()), LogLineError::LongNick);
        assert_eq!(error_of(format!("[00:00] <a> {}", "b".repeat(TEXT_MAX + 1)).as_bytes()), LogLineError::LongText);
        for line in ["[0:00] <a> b", "[00:00] a b", "[00:00] <a>b", "[00:00] <a b", "[00:00] * a b", "[aa:00] <a> b"] {
            assert_eq!(error_of(line.as_bytes()), LogLineError::Shape, "{line}");
        }
    }

    #[test]
    fn only_the_first_malformed_lines_are_listed() {
        let log = parse(&b"x\n".repeat(25));

        assert_eq!((log.malformed.first.len(), log.malformed.count), (20, 25));
    }

    proptest! {
        #[test]
        fn every_line_of_any_bytes_is_counted_once(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let log = parse(&bytes);
            prop_assert_eq!(log.total, log.lines.len() + log.system + log.malformed.count);
        }

        #[test]
        fn nick_and_text_are_parsed_unchanged(nick in "[^>\\x00\\r\\n\u{fffd}]{1,5}", text in "[^\\x00\\r\\n]{0,40}") {
            let line = parse_one(&format!("[23:59] <{nick}> {text}\n"));
            prop_assert_eq!((line.nick, line.text), (nick, text));
        }
    }
}
