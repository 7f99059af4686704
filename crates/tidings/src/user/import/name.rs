//! Makes each line safe to repeat: a user without an id gets a `request_id` that the same line has again in the next run.

use std::collections::HashMap;

use prost::Message;
use sha2::{Digest as _, Sha256};
use tidings_proto::user::CreateUserRequest;

use super::line::Flaw;

/// Names lines that have no name of their own.
#[derive(Debug, Default)]
pub(super) struct Names {
    import: Option<String>,
    /// How many lines said the same so far; 20 bytes for each line without a name.
    seen: HashMap<[u8; 16], u32>,
}

impl Names {
    /// Under this name, if there is one.
    pub(super) fn new(import: Option<String>) -> Self {
        Self { import, seen: HashMap::new() }
    }

    /// Whether there is a name for lines that have none.
    pub(super) fn can_name(&self) -> bool {
        self.import.is_some()
    }

    /// Gives the line a `request_id` if it has neither that nor an id: of the name of the import, what the line says, and how
    /// many equal lines stand before it.
    ///
    /// # Errors
    /// It has neither, and the import has no name.
    pub(super) fn name(&mut self, wish: &mut CreateUserRequest) -> Result<(), Flaw> {
        if !wish.request_id.is_empty() || wish.user.as_ref().is_some_and(|user| !user.id.is_empty()) {
            return Ok(());
        }
        let import = self.import.as_ref().ok_or_else(|| {
            Flaw::of("id", "expected an id or a request_id; without either give the import an --import-name")
        })?;
        let said = wish.user.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let before = self.seen.entry(half(&[&said])).or_default();
        let place = before.to_be_bytes();
        *before += 1;
        let length = (import.len() as u64).to_be_bytes();
        let name = half(&[&length, import.as_bytes(), &place, &said]);
        wish.request_id = format!("import-{:032x}", u128::from_be_bytes(name));
        Ok(())
    }
}

/// Half of a SHA-256: two of 2^64 would be equal by chance.
fn half(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use tidings_proto::user::User;

    use super::*;

    fn line(name: &str) -> CreateUserRequest {
        let user = User { display_name: name.to_owned(), ..User::default() };
        CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }
    }

    /// The request ids of lines with these names.
    fn ids(import: &str, lines: &[&str]) -> Vec<String> {
        let mut names = Names::new(Some(import.to_owned()));
        let id = |said: &&str| {
            let mut line = line(said);
            names.name(&mut line).unwrap();
            line.request_id
        };
        lines.iter().map(id).collect()
    }

    #[test]
    fn the_same_line_has_the_same_name_wherever_it_stands() {
        let before = ids("staff", &["ada", "bob", "eve"]);
        let after = ids("staff", &["new", "eve", "ada"]);

        assert_eq!((&before[0], &before[2]), (&after[2], &after[1]));
        assert!(before[0].len() <= 64 && before[0].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }

    #[test]
    fn equal_lines_are_users_of_their_own_and_so_are_those_of_another_import() {
        let mut all = ids("staff", &["bob", "bob", "bob"]);
        all.extend(ids("guests", &["bob"]));

        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_line_that_has_a_name_keeps_it() {
        let mut with_id = line("bob");
        with_id.user.as_mut().unwrap().id = "bob".into();
        let mut with_request = CreateUserRequest { request_id: "r1".into(), ..line("bob") };
        let mut names = Names::default();

        names.name(&mut with_id).unwrap();
        names.name(&mut with_request).unwrap();

        assert_eq!((with_id.request_id.as_str(), with_request.request_id.as_str()), ("", "r1"));
        assert!(names.name(&mut line("bob")).is_err());
    }
}
