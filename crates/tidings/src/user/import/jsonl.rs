//! Users in JSON Lines: each line has a user as the contract's JSON, and optionally a `request_id`.

mod unique_keys;

use std::io::{self, BufRead, Read as _};

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};
use tidings_proto::user::{CreateUserRequest, User};

use self::unique_keys::UniqueKeys;
use super::line::{ImportLine, LINE_BYTES_MAX, LineError, RawLine};
use crate::contracts::{Contracts, UnresolvedName};

/// An iterator over the lines of a file; skips blank lines.
pub(super) struct JsonlReader<R> {
    input: R,
    number: u64,
    user: MessageDescriptor,
}

impl<R: BufRead> JsonlReader<R> {
    /// Creates a reader; nothing is read yet.
    pub(super) fn new(input: R) -> Result<Self, UnresolvedName> {
        let user = Contracts::compiled_in().message("tidings.user.v1.User")?;
        Ok(Self { input, number: 0, user })
    }

    /// Returns the next line without its line end, `None` after the last.
    ///
    /// # Errors
    /// The input cannot be read, or the line is longer than [`LINE_BYTES_MAX`].
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        (&mut self.input).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut text)?;
        self.number += 1;
        if text.len() > LINE_BYTES_MAX {
            let problem = format!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let end = text.ends_with(b"\n");
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok((end || !text.is_empty()).then(|| text.to_vec()))
    }
}

impl<R: BufRead> Iterator for JsonlReader<R> {
    type Item = io::Result<ImportLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = match self.line() {
                Ok(text) => text?,
                Err(error) => return Some(Err(error)),
            };
            if !text.trim_ascii().is_empty() {
                let request = parse_request(&self.user, &text);
                return Some(Ok(ImportLine { number: self.number, request, raw: RawLine::Text(text) }));
            }
        }
    }
}

fn parse_request(user: &MessageDescriptor, text: &[u8]) -> Result<CreateUserRequest, Vec<LineError>> {
    let UniqueKeys(value) =
        serde_json::from_slice(text).map_err(|error| vec![LineError::whole(&syntax_error(&error))])?;
    let Value::Object(mut fields) = value else {
        return Err(vec![LineError::whole("expected a JSON object with the fields of a user")]);
    };
    let (mut errors, mut request_id) = (duplicate_fields(user, &fields), String::new());
    for name in ["request_id", "requestId"] {
        match fields.shift_remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) => request_id = id,
            Some(_) => errors.push(LineError::of(name, "expected a string")),
        }
    }
    let user = match parse_user(user, &fields) {
        // Output-only fields, as `user list` prints them, are ignored.
        Ok(read) => User { version: 0, create_time: None, update_time: None, ..read },
        Err(problem) => {
            errors.extend(field_errors(user, &fields, &problem));
            User::default()
        }
    };
    if errors.is_empty() { Ok(CreateUserRequest { user: Some(user), request_id }) } else { Err(errors) }
}

/// Returns an error for each field given in both snake case and camel case: one of the two values
/// would be lost silently.
fn duplicate_fields(user: &MessageDescriptor, fields: &Map<String, Value>) -> Vec<LineError> {
    let names = user.fields().map(|field| (field.name().to_owned(), field.json_name().to_owned()));
    let both = names
        .chain([("request_id".to_owned(), "requestId".to_owned())])
        .filter(|(name, json)| name != json && fields.contains_key(name) && fields.contains_key(json));
    both.map(|(name, json)| LineError::of(&name, &format_args!("given twice, also as {json}"))).collect()
}

/// Renders a syntax error without the line number of `serde_json`, which always sees one line.
fn syntax_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    let expected = if error.is_data() { "" } else { "expected a JSON object: " };
    format!("{expected}{problem} at column {}", error.column())
}

/// Parses a user; an unknown field is an error, because its value would be lost silently.
fn parse_user(user: &MessageDescriptor, fields: &Map<String, Value>) -> Result<User, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(user.clone(), Value::Object(fields.clone()), &options);
    message.map_err(|error| error.to_string())?.transcode_to().map_err(|error| error.to_string())
}

/// Returns the errors of each field parsed alone; if all of these succeed, an error of the whole
/// line with the text `problem`.
fn field_errors(user: &MessageDescriptor, fields: &Map<String, Value>, problem: &str) -> Vec<LineError> {
    let alone = fields.iter().filter_map(|(name, value)| {
        let alone = [(name.clone(), value.clone())].into_iter().collect();
        parse_user(user, &alone).err().map(|problem| LineError::of(name, &problem))
    });
    let errors: Vec<_> = alone.collect();
    if errors.is_empty() { vec![LineError::whole(problem)] } else { errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<ImportLine> {
        JsonlReader::new(text).unwrap().map(Result::unwrap).collect()
    }

    fn errors(text: &str) -> Vec<String> {
        read(text.as_bytes()).remove(0).request.unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_a_user_in_the_json_of_the_contract() {
        let text = r#"{"id": "ada", "displayName": "Ada", "age": 36, "attributes": {"team": "ops"}}
            {"display_name": "Bob", "request_id": "r1", "version": "7", "createTime": "2025-01-01T00:00:00Z"}"#;
        let requests: Vec<_> = read(text.as_bytes()).into_iter().map(|line| line.request.unwrap()).collect();

        let ada = requests[0].user.as_ref().unwrap();
        assert_eq!((ada.display_name.as_str(), ada.age, ada.attributes["team"].as_str()), ("Ada", Some(36), "ops"));
        let bob = User { display_name: "Bob".into(), ..User::default() };
        assert_eq!(requests[1], CreateUserRequest { user: Some(bob), request_id: "r1".into() });
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        let numbers = |text: &[u8]| read(text).iter().map(|line| line.number).collect::<Vec<_>>();

        assert_eq!(numbers(b"\n{}\r\n  \n{}"), [2, 4]);
        assert_eq!(numbers(b"{}\n"), [1]);
        assert_eq!(numbers(b""), [0; 0]);
    }

    #[test]
    fn every_error_of_a_line_is_reported_by_field() {
        let errors = errors(r#"{"id": "ada", "age": "old", "nick": 1, "request_id": 7}"#);

        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(errors[0], "request_id: expected a string");
        assert!(errors[1].starts_with("age: ") && errors[2].starts_with("nick: "), "{errors:?}");
    }

    #[test]
    fn a_duplicate_field_is_reported_by_name() {
        assert_eq!(errors(r#"{"id": "ada", "id": "bob"}"#), ["duplicate key 'id' at column 18"]);
        assert_eq!(errors(r#"{"attributes": {"a": "1", "a": "2"}}"#), ["duplicate key 'a' at column 29"]);
        assert_eq!(
            errors(r#"{"displayName": "Ada", "display_name": "Bob"}"#),
            ["display_name: given twice, also as displayName"]
        );
        assert_eq!(
            errors(r#"{"request_id": "r1", "requestId": "r1"}"#),
            ["request_id: given twice, also as requestId"]
        );
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_column() {
        assert_eq!(errors("[]"), ["expected a JSON object with the fields of a user"]);
        assert_eq!(errors(r#"{"id": }"#), ["expected a JSON object: expected value at column 8"]);
        assert!(errors("{\"id\": \"\u{7}\"}")[0].starts_with("expected a JSON object: control character"));
        assert!(read(b"{\"id\": \"\xff\"}")[0].request.is_err());
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error() {
        assert!(JsonlReader::new(&vec![b'x'; LINE_BYTES_MAX + 1][..]).unwrap().next().unwrap().is_err());
    }
}
