//! Reads a log: what was said, by whom, in which line.

use super::names;

/// The most bytes that a message says; the contract says so.
const TEXT_MAX: usize = 32_768;

/// What a log holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// The lines that are messages, in order.
    pub(super) lines: Vec<Line>,
    /// How many lines there are, of any kind.
    pub(super) total: usize,
    /// How many lines are not said by anybody: `=== ...`.
    pub(super) system: usize,
    /// The lines that are nothing.
    pub(super) malformed: Malformed,
    /// How many bytes of messages are not UTF-8; each stretch of them became a U+FFFD.
    pub(super) replaced_bytes: usize,
}

/// A line that somebody said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it stands, counted from 0 over all lines.
    pub(super) number: usize,
    /// When it was said, as written: `12:59`.
    pub(super) time: String,
    /// Who said it, as spelled.
    pub(super) nick: String,
    /// The user behind the nick.
    pub(super) user_id: String,
    /// How it was said.
    pub(super) kind: Kind,
    /// What was said; may be empty.
    pub(super) text: String,
}

/// How something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `<nick> text`
    Text,
    /// ` * nick text`
    Action,
}

impl Kind {
    /// How the attribute `kind` says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Action => "action",
        }
    }
}

/// Lines that were skipped because they are nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Where the first of them stand and what is wrong with them.
    pub(super) first: Vec<(usize, Fault)>,
    /// How many there are.
    pub(super) count: usize,
}

impl Malformed {
    /// So many are told one by one; a file that is no log at all has as many as it has lines.
    const TOLD: usize = 20;

    /// Notes one more.
    pub(super) fn push(&mut self, line: usize, fault: Fault) {
        if self.first.len() < Self::TOLD {
            self.first.push((line, fault));
        }
        self.count += 1;
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It looks like nothing a log has.
    #[error("expected `[HH:MM] <nick> text`, `[HH:MM]  * nick action` or `=== ...`")]
    Shape,
    /// It has no nick.
    #[error("the nick is empty")]
    NoNick,
    /// The nick gives no legal id.
    #[error("the nick is too long for a user id of 64 bytes")]
    LongNick,
    /// The text is no message.
    #[error("the text has more than 32,768 bytes, the most a message can have")]
    LongText,
    /// Postgres cannot keep it.
    #[error("it holds a NUL character, which cannot be stored")]
    Nul,
    /// A line of a `.replies` file looks like nothing it has.
    #[error("expected `A B -`: line B answers line A, and A is not after B")]
    Reply,
}

/// Reads a log. A line ends with `\n` or `\r\n`; after the last end there is no further line.
pub(super) fn parse(bytes: &[u8]) -> Log {
    let mut log = Log::default();
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
            Err(fault) => log.malformed.push(number, fault),
        }
    }
    log
}

/// The lines of a file with their numbers, without their ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let ended = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let lines = (!bytes.is_empty()).then(|| ended.split(|byte| *byte == b'\n'));
    lines.into_iter().flatten().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate()
}

/// The text of a line; whatever is not UTF-8 is replaced.
pub(super) fn decode(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(line)
}

fn invalid_bytes(line: &[u8]) -> usize {
    line.utf8_chunks().map(|chunk| chunk.invalid().len()).sum()
}

fn parse_line(number: usize, line: &str) -> Result<Line, Fault> {
    if line.contains('\0') {
        return Err(Fault::Nul);
    }
    let (time, said) = parse_time(line).ok_or(Fault::Shape)?;
    let (kind, nick, text) = if let Some(said) = said.strip_prefix(" <") {
        let (nick, text) = said.split_once('>').ok_or(Fault::Shape)?;
        let text = if text.is_empty() { text } else { text.strip_prefix(' ').ok_or(Fault::Shape)? };
        (Kind::Text, nick, text)
    } else {
        let said = said.strip_prefix("  * ").ok_or(Fault::Shape)?;
        let (nick, text) = said.split_once(' ').unwrap_or((said, ""));
        (Kind::Action, nick, text)
    };
    if nick.is_empty() {
        return Err(Fault::NoNick);
    }
    if text.len() > TEXT_MAX {
        return Err(Fault::LongText);
    }
    Ok(Line {
        number,
        time: time.to_owned(),
        nick: nick.to_owned(),
        user_id: names::user_id(nick).ok_or(Fault::LongNick)?,
        kind,
        text: text.to_owned(),
    })
}

/// Splits `[12:59] rest` into `12:59` and ` rest`. Any digits will do: a time is kept as written, never interpreted.
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

    fn one(line: &str) -> Line {
        let mut log = parse(line.as_bytes());
        assert_eq!(log.malformed.count, 0, "{line}");
        log.lines.remove(0)
    }

    fn fault(line: &[u8]) -> Fault {
        parse(line).malformed.first[0].1
    }

    #[test]
    fn a_text_has_a_time_a_nick_and_a_text() {
        let line = one("[12:59] <|trey|> hello <you>  ");

        assert_eq!((line.time.as_str(), line.nick.as_str(), line.kind), ("12:59", "|trey|", Kind::Text));
        assert_eq!(line.text, "hello <you>  ");
        assert_eq!(line.user_id, "irc-~7ctrey~7c");
    }

    #[test]
    fn an_action_has_a_nick_up_to_the_first_space() {
        let line = one("[09:41]  * Ada_ waves at everybody");

        assert_eq!((line.nick.as_str(), line.text.as_str(), line.kind), ("Ada_", "waves at everybody", Kind::Action));
        assert_eq!(one("[09:41]  * ada").text, "");
    }

    #[test]
    fn an_empty_text_is_a_text() {
        assert_eq!(one("[12:15] <opteron>").text, "");
        assert_eq!(one("[12:15] <opteron> ").text, "");
        assert_eq!(one("[12:15] <opteron>  ").text, " ");
    }

    #[test]
    fn lines_are_counted_from_0_over_all_of_them() {
        let log = parse(b"=== topic\nnonsense\n[00:00] <a> b\n\n[00:01] <a> c");

        assert_eq!((log.total, log.system, log.malformed.count), (5, 1, 2));
        assert_eq!(log.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(log.malformed.first, [(1, Fault::Shape), (3, Fault::Shape)]);
    }

    #[test]
    fn nothing_follows_the_last_line_end() {
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
    fn what_cannot_be_sent_is_malformed_with_its_reason() {
        assert_eq!(fault(b"[00:00] <a> \0"), Fault::Nul);
        assert_eq!(fault(b"[00:00] <> b"), Fault::NoNick);
        assert_eq!(fault(format!("[00:00] <{}> b", "n".repeat(61)).as_bytes()), Fault::LongNick);
        assert_eq!(fault(format!("[00:00] <a> {}", "b".repeat(TEXT_MAX + 1)).as_bytes()), Fault::LongText);
        for line in ["[0:00] <a> b", "[00:00] a b", "[00:00] <a>b", "[00:00] <a b", "[00:00] * a b", "[aa:00] <a> b"] {
            assert_eq!(fault(line.as_bytes()), Fault::Shape, "{line}");
        }
    }

    #[test]
    fn only_the_first_malformed_lines_are_told() {
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
        fn what_was_said_is_read_as_it_was(nick in "[^>\\x00\\r\\n\u{fffd}]{1,5}", text in "[^\\x00\\r\\n]{0,40}") {
            let line = one(&format!("[23:59] <{nick}> {text}\n"));
            prop_assert_eq!((line.nick, line.text), (nick, text));
        }
    }
}
