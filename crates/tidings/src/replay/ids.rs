//! Derives ids (1 to 64 of `[A-Za-z0-9._~-]`) from nicks and file names.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Maximum length of an id in bytes, set by the contracts.
const ID_MAX: usize = 64;
/// Prefix of the ids of replayed users.
const USER_PREFIX: &str = "irc-";
/// Bytes of the hash that ends a truncated id: enough to distinguish the files of one replay.
const HASH_BYTES: usize = 4;

/// Folds a nick to lower case: spellings that differ only in case are one user.
pub(super) fn fold(nick: &str) -> String {
    nick.to_lowercase()
}

/// Returns the user id of a nick; `None` if it would exceed [`ID_MAX`].
///
/// Different folded nicks have different ids.
pub(super) fn user_id(nick: &str) -> Option<String> {
    let mut id = USER_PREFIX.to_owned();
    escape(&mut id, fold(nick).as_bytes(), |byte| byte.is_ascii_lowercase() || plain(byte));
    (id.len() <= ID_MAX).then_some(id)
}

/// Returns the conversation id of a file whose name without extension is `stem`.
///
/// Different stems have different ids. Ids that had to be truncated may collide in their 32-bit
/// hash.
pub(super) fn conversation_id(prefix: &str, stem: &[u8]) -> String {
    let mut id = prefix.to_owned();
    escape(&mut id, stem, |byte| byte.is_ascii_alphabetic() || plain(byte));
    if id.len() > ID_MAX {
        let hash = Sha256::digest(&id);
        id.truncate(ID_MAX - 2 * HASH_BYTES); // the id is ASCII
        for byte in &hash[..HASH_BYTES] {
            let _ = write!(id, "{byte:02x}");
        }
    }
    id
}

/// Returns whether `prefix` is a legal prefix of conversation ids that leaves half of the id for
/// the name.
pub(super) fn legal_prefix(prefix: &str) -> bool {
    prefix.len() <= ID_MAX / 2 && prefix.bytes().all(|byte| byte.is_ascii_alphabetic() || plain(byte) || byte == b'~')
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_digit() || b"._-".contains(&byte)
}

/// Appends `bytes` to `id`. Bytes that are not legal, `~` included, become `~` and two hexadecimal
/// digits.
fn escape(id: &mut String, bytes: &[u8], legal: impl Fn(u8) -> bool) {
    for &byte in bytes {
        if legal(byte) {
            id.push(char::from(byte));
        } else {
            let _ = write!(id, "~{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn legal(id: &str) -> bool {
        (1..=ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
    }

    #[test]
    fn a_nick_becomes_a_user_id() {
        assert_eq!(user_id("ada").unwrap(), "irc-ada");
        assert_eq!(user_id("Mr.Foo_-1").unwrap(), "irc-mr.foo_-1");
        assert_eq!(user_id("|trey|").unwrap(), "irc-~7ctrey~7c");
        assert_eq!(user_id("a~b").unwrap(), "irc-a~7eb");
        assert_eq!(user_id("Zoë").unwrap(), "irc-zo~c3~ab");
    }

    #[test]
    fn spellings_that_differ_only_in_case_are_one_user() {
        assert_eq!(user_id("[Kit]"), user_id("[kIT]"));
        assert_eq!(user_id("ÉVA"), user_id("éva"));
    }

    #[test]
    fn an_id_has_at_most_64_bytes() {
        assert_eq!(user_id(&"n".repeat(60)).unwrap().len(), 64);
        assert_eq!(user_id(&"n".repeat(61)), None);
        assert_eq!(user_id(&"é".repeat(11)), None);
    }

    #[test]
    fn a_file_name_becomes_a_conversation_id() {
        assert_eq!(conversation_id("irc-", b"2004-11-15_03"), "irc-2004-11-15_03");
        assert_eq!(conversation_id("again-", "Fête #1".as_bytes()), "again-F~c3~aate~20~231");
    }

    #[test]
    fn the_id_of_a_long_file_name_is_truncated_and_ends_with_a_hash() {
        let one = conversation_id("irc-", format!("{}1", "x".repeat(80)).as_bytes());
        let other = conversation_id("irc-", format!("{}2", "x".repeat(80)).as_bytes());

        assert_eq!((one.len(), other.len()), (64, 64));
        assert_eq!(one[..56], other[..56]);
        assert_ne!(one, other);
    }

    #[test]
    fn a_prefix_has_legal_characters_and_leaves_room_for_a_name() {
        assert!(legal_prefix("") && legal_prefix("again~2-"));
        assert!(!legal_prefix("a b") && !legal_prefix(&"x".repeat(33)));
    }

    proptest! {
        #[test]
        fn different_users_have_different_ids(one in "\\PC{0,8}", other in "\\PC{0,8}") {
            if let (Some(one_id), Some(other_id)) = (user_id(&one), user_id(&other)) {
                prop_assert_eq!(one_id == other_id, fold(&one) == fold(&other));
            }
        }

        #[test]
        fn every_id_is_legal(nick in "\\PC{0,30}", stem in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(user_id(&nick).is_none_or(|id| legal(&id)));
            prop_assert!(legal(&conversation_id("irc-", &stem)));
        }
    }
}
