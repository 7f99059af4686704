//! Users in JSON Lines: on each line a user of the contract, with or without a `request_id`.

mod once;

use std::io::{self, BufRead, Read as _};

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};
use tidings_proto::user::{CreateUserRequest, User};

use self::once::Once;
use super::line::{Flaw, LONGEST, Line, Raw};
use crate::contracts::{Contracts, Unknown};

/// The lines of a file, without those that hold nothing.
pub(super) struct Objects<R> {
    input: R,
    number: u64,
    user: MessageDescriptor,
}

impl<R: BufRead> Objects<R> {
    /// Reads nothing yet.
    pub(super) fn new(input: R) -> Result<Self, Unknown> {
        let user = Contracts::compiled_in().message("tidings.user.v1.User")?;
        Ok(Self { input, number: 0, user })
    }

    /// The next line without its end, `None` after the last.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        (&mut self.input).take(LONGEST as u64 + 1).read_until(b'\n', &mut text)?;
        self.number += 1;
        if text.len() > LONGEST {
            let problem = format!("line {} is longer than {LONGEST} bytes", self.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let end = text.ends_with(b"\n");
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok((end || !text.is_empty()).then(|| text.to_vec()))
    }
}

impl<R: BufRead> Iterator for Objects<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = match self.line() {
                Ok(text) => text?,
                Err(error) => return Some(Err(error)),
            };
            if !text.trim_ascii().is_empty() {
                let wish = wish(&self.user, &text);
                return Some(Ok(Line { number: self.number, wish, raw: Raw::Text(text) }));
            }
        }
    }
}

fn wish(user: &MessageDescriptor, text: &[u8]) -> Result<CreateUserRequest, Vec<Flaw>> {
    let Once(value) = serde_json::from_slice(text).map_err(|error| vec![Flaw::whole(&no_json(&error))])?;
    let Value::Object(mut fields) = value else {
        return Err(vec![Flaw::whole("expected a JSON object with the fields of a user")]);
    };
    let (mut flaws, mut request_id) = (under_both_names(user, &fields), String::new());
    for name in ["request_id", "requestId"] {
        match fields.shift_remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) => request_id = id,
            Some(_) => flaws.push(Flaw::of(name, "expected a string")),
        }
    }
    let user = match parse(user, &fields) {
        // What the service says is not what it is told.
        Ok(read) => User { version: 0, create_time: None, update_time: None, ..read },
        Err(problem) => {
            flaws.extend(by_field(user, &fields, &problem));
            User::default()
        }
    };
    if flaws.is_empty() { Ok(CreateUserRequest { user: Some(user), request_id }) } else { Err(flaws) }
}

/// Fields that stand there as the contract calls them and as its JSON does: one of them would win silently.
fn under_both_names(user: &MessageDescriptor, fields: &Map<String, Value>) -> Vec<Flaw> {
    let names = user.fields().map(|field| (field.name().to_owned(), field.json_name().to_owned()));
    let both = names
        .chain([("request_id".to_owned(), "requestId".to_owned())])
        .filter(|(name, json)| name != json && fields.contains_key(name) && fields.contains_key(json));
    both.map(|(name, json)| Flaw::of(&name, &format_args!("stands there twice, as {json}, too"))).collect()
}

/// Everybody knows which line it is, and it has a number of its own.
fn no_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    let expected = if error.is_data() { "" } else { "expected a JSON object: " };
    format!("{expected}{problem} at column {}", error.column())
}

/// Reads a user; a field that it does not have is an error, as it would silently say nothing.
fn parse(user: &MessageDescriptor, fields: &Map<String, Value>) -> Result<User, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(user.clone(), Value::Object(fields.clone()), &options);
    message.map_err(|error| error.to_string())?.transcode_to().map_err(|error| error.to_string())
}

/// What is wrong with each field by itself; with all of it if each by itself is right.
fn by_field(user: &MessageDescriptor, fields: &Map<String, Value>, problem: &str) -> Vec<Flaw> {
    let alone = fields.iter().filter_map(|(name, value)| {
        let alone = [(name.clone(), value.clone())].into_iter().collect();
        parse(user, &alone).err().map(|problem| Flaw::of(name, &problem))
    });
    let flaws: Vec<_> = alone.collect();
    if flaws.is_empty() { vec![Flaw::whole(problem)] } else { flaws }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Line> {
        Objects::new(text).unwrap().map(Result::unwrap).collect()
    }

    fn flaws(text: &str) -> Vec<String> {
        read(text.as_bytes()).remove(0).wish.unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_a_user_as_the_contract_writes_it() {
        let text = r#"{"id": "ada", "displayName": "Ada", "age": 36, "attributes": {"team": "ops"}}
            {"display_name": "Bob", "request_id": "r1", "version": "7", "createTime": "2025-01-01T00:00:00Z"}"#;
        let wishes: Vec<_> = read(text.as_bytes()).into_iter().map(|line| line.wish.unwrap()).collect();

        let ada = wishes[0].user.as_ref().unwrap();
        assert_eq!((ada.display_name.as_str(), ada.age, ada.attributes["team"].as_str()), ("Ada", Some(36), "ops"));
        let bob = User { display_name: "Bob".into(), ..User::default() };
        assert_eq!(wishes[1], CreateUserRequest { user: Some(bob), request_id: "r1".into() });
    }

    #[test]
    fn lines_that_hold_nothing_are_counted_and_passed_over() {
        let numbers = |text: &[u8]| read(text).iter().map(|line| line.number).collect::<Vec<_>>();

        assert_eq!(numbers(b"\n{}\r\n  \n{}"), [2, 4]);
        assert_eq!(numbers(b"{}\n"), [1]);
        assert_eq!(numbers(b""), [0; 0]);
    }

    #[test]
    fn all_that_is_wrong_with_a_line_is_told_by_field() {
        let told = flaws(r#"{"id": "ada", "age": "old", "nick": 1, "request_id": 7}"#);

        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0], "request_id: expected a string");
        assert!(told[1].starts_with("age: ") && told[2].starts_with("nick: "), "{told:?}");
    }

    #[test]
    fn a_field_that_stands_there_twice_is_told_by_its_name() {
        assert_eq!(flaws(r#"{"id": "ada", "id": "bob"}"#), ["the key 'id' stands there twice at column 18"]);
        assert_eq!(flaws(r#"{"attributes": {"a": "1", "a": "2"}}"#), ["the key 'a' stands there twice at column 29"]);
        assert_eq!(
            flaws(r#"{"displayName": "Ada", "display_name": "Bob"}"#),
            ["display_name: stands there twice, as displayName, too"]
        );
        assert_eq!(
            flaws(r#"{"request_id": "r1", "requestId": "r1"}"#),
            ["request_id: stands there twice, as requestId, too"]
        );
    }

    #[test]
    fn what_is_no_object_is_told_with_its_column() {
        assert_eq!(flaws("[]"), ["expected a JSON object with the fields of a user"]);
        assert_eq!(flaws(r#"{"id": }"#), ["expected a JSON object: expected value at column 8"]);
        assert!(flaws("{\"id\": \"\u{7}\"}")[0].starts_with("expected a JSON object: control character"));
        assert!(read(b"{\"id\": \"\xff\"}")[0].wish.is_err());
    }

    #[test]
    fn a_line_without_end_ends_the_reading() {
        assert!(Objects::new(&vec![b'x'; LONGEST + 1][..]).unwrap().next().unwrap().is_err());
    }
}
