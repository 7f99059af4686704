//! Makes each line idempotent: a user without an id gets a `request_id` that the same line gets
//! again in the next run.

use std::collections::HashMap;

use prost::Message;
use sha2::{Digest as _, Sha256};
use tidings_proto::user::CreateUserRequest;

use super::line::LineError;

/// Assigns request ids to lines that have neither id nor request id.
#[derive(Debug, Default)]
pub(super) struct RequestIds {
    import: Option<String>,
    /// Number of equal lines so far, by the hash of their content: 20 bytes per distinct line.
    seen: HashMap<[u8; 16], u32>,
}

impl RequestIds {
    /// Creates an assigner for the import of this name.
    pub(super) fn new(import: Option<String>) -> Self {
        Self { import, seen: HashMap::new() }
    }

    /// Returns true if ids can be assigned.
    pub(super) fn has_import_name(&self) -> bool {
        self.import.is_some()
    }

    /// Assigns a `request_id` if the request has neither that nor an id.
    ///
    /// The id is a hash of the import's name, the line's content and the number of equal lines
    /// before it.
    ///
    /// # Errors
    /// The request needs an id, and the import has no name.
    pub(super) fn assign(&mut self, request: &mut CreateUserRequest) -> Result<(), LineError> {
        if !request.request_id.is_empty() || request.user.as_ref().is_some_and(|user| !user.id.is_empty()) {
            return Ok(());
        }
        let import = self
            .import
            .as_ref()
            .ok_or_else(|| LineError::of("id", "expected an id or a request_id, or the flag --import-name"))?;
        let content = request.user.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let equal_lines = self.seen.entry(half_hash(&[&content])).or_default();
        let position = equal_lines.to_be_bytes();
        *equal_lines += 1;
        let length = (import.len() as u64).to_be_bytes();
        let id = half_hash(&[&length, import.as_bytes(), &position, &content]);
        request.request_id = format!("import-{:032x}", u128::from_be_bytes(id));
        Ok(())
    }
}

/// Returns the first half of a SHA-256: a collision is expected only among 2^64 lines.
fn half_hash(parts: &[&[u8]]) -> [u8; 16] {
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

    /// Returns the request ids assigned to lines with these display names.
    fn ids(import: &str, lines: &[&str]) -> Vec<String> {
        let mut ids = RequestIds::new(Some(import.to_owned()));
        let id = |name: &&str| {
            let mut line = line(name);
            ids.assign(&mut line).unwrap();
            line.request_id
        };
        lines.iter().map(id).collect()
    }

    #[test]
    fn a_line_gets_the_same_id_at_any_position() {
        let before = ids("staff", &["ada", "bob", "eve"]);
        let after = ids("staff", &["new", "eve", "ada"]);

        assert_eq!((&before[0], &before[2]), (&after[2], &after[1]));
        assert!(before[0].len() <= 64 && before[0].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }

    #[test]
    fn equal_lines_and_other_imports_get_ids_of_their_own() {
        let mut all = ids("staff", &["bob", "bob", "bob"]);
        all.extend(ids("guests", &["bob"]));

        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_line_with_an_id_or_a_request_id_keeps_it() {
        let mut with_id = line("bob");
        with_id.user.as_mut().unwrap().id = "bob".into();
        let mut with_request = CreateUserRequest { request_id: "r1".into(), ..line("bob") };
        let mut ids = RequestIds::default();

        ids.assign(&mut with_id).unwrap();
        ids.assign(&mut with_request).unwrap();

        assert_eq!((with_id.request_id.as_str(), with_request.request_id.as_str()), ("", "r1"));
        assert!(ids.assign(&mut line("bob")).is_err());
    }
}
