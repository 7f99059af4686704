//! Page tokens: opaque, bound to one list, refused when altered.
//!
//! A token holds its kind, its cursor, and the first eight bytes of a SHA-256 over the name of the
//! list and these two. It is neither secret nor a permission: a forged token yields a page that its
//! caller could have requested anyway. A service therefore validates the cursor like any field.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

const CHECKSUM_BYTES: usize = 8;

/// The position at which a page begins, encoded by its service.
pub trait PageCursor: Sized {
    /// Appends the encoded cursor.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Decodes a cursor from all of these bytes; `None` if they are malformed.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Encodes a token for the list named `list`. `kind` distinguishes lists of the same name, and the
/// two ends of a page.
pub fn encode(kind: u8, list: &str, cursor: &impl PageCursor) -> String {
    let mut bytes = vec![kind];
    cursor.write(&mut bytes);
    let checksum = checksum(list, &bytes);
    bytes.extend(checksum);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a token of this kind for the list named `list`; `None` if it is malformed, altered, or
/// made for another list.
pub fn decode<P: PageCursor>(kind: u8, list: &str, token: &str) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (payload, given) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let (&token_kind, cursor) = payload.split_first()?;
    if token_kind != kind || checksum(list, payload) != *given {
        return None;
    }
    P::read(cursor)
}

/// The length of the list's name is hashed before the name, so that no byte can move from the name
/// to the cursor.
fn checksum(list: &str, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let length = (list.len() as u64).to_be_bytes();
    let digest = Sha256::new().chain_update(length).chain_update(list).chain_update(payload).finalize();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    checksum
}

/// Non-negative integers, such as a time and a seq.
impl<const N: usize> PageCursor for [i64; N] {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.iter().flat_map(|number| number.to_be_bytes()));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks();
        let numbers: Vec<i64> = chunks.iter().map(|chunk| i64::from_be_bytes(*chunk)).collect();
        let numbers: Self = numbers.try_into().ok().filter(|_| rest.is_empty())?;
        numbers.iter().all(|number| *number >= 0).then_some(numbers)
    }
}

/// A text, such as the id of the last item.
impl PageCursor for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every text that differs from the token in one character: replaced, added or removed.
    fn alterations(token: &str, letter: char) -> Vec<String> {
        let letter = letter.to_string();
        let mut altered = vec![format!("{token}{letter}"), format!("{letter}{token}"), token.to_uppercase()];
        for index in 0..token.len() {
            for replacement in ["", &letter] {
                let mut changed = token.to_owned();
                changed.replace_range(index..=index, replacement);
                altered.push(changed);
            }
        }
        altered.retain(|altered| altered != token);
        altered
    }

    proptest! {
        #[test]
        fn a_token_yields_its_cursor_only_for_its_own_list(
            numbers in [0..i64::MAX, 0..i64::MAX], text in ".*", list in ".{0,8}",
        ) {
            let token = encode(1, &list, &numbers);
            prop_assert_eq!(decode(1, &list, &token), Some(numbers));
            prop_assert_eq!(decode::<[i64; 2]>(1, &format!("{list}x"), &token), None);
            prop_assert_eq!(decode::<[i64; 2]>(2, &list, &token), None);
            prop_assert_eq!(decode::<[i64; 1]>(1, &list, &token), None);

            let token = encode(1, &list, &text);
            prop_assert_eq!(decode(1, &list, &token), Some(text));
            prop_assert_eq!(decode::<String>(1, &format!("{list}x"), &token), None);
        }

        #[test]
        fn a_token_with_a_negative_number_is_malformed(number in i64::MIN..0) {
            prop_assert_eq!(decode::<[i64; 1]>(1, "lobby", &encode(1, "lobby", &[number])), None);
        }

        #[test]
        fn a_token_with_any_altered_character_is_refused(
            text in "[a-z]{0,8}", number in 0..i64::MAX, letter in "[A-Za-z0-9_=. -]",
        ) {
            let letter = letter.chars().next().unwrap();
            for altered in alterations(&encode(1, "lobby", &text), letter) {
                prop_assert_eq!(decode::<String>(1, "lobby", &altered), None, "{}", altered);
            }
            for altered in alterations(&encode(1, "lobby", &[number]), letter) {
                prop_assert_eq!(decode::<[i64; 1]>(1, "lobby", &altered), None, "{}", altered);
            }
        }

        #[test]
        fn no_input_makes_the_decoder_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for token in [text, URL_SAFE_NO_PAD.encode(bytes)] {
                prop_assert_eq!(decode::<[i64; 1]>(1, "lobby", &token), None);
                prop_assert_eq!(decode::<String>(1, "lobby", &token), None);
            }
        }
    }

    #[test]
    fn no_byte_can_move_from_the_list_name_to_the_cursor() {
        let token = encode(1, "bc", &"a".to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
        let (cursor, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let moved = URL_SAFE_NO_PAD.encode([cursor, b"b", checksum].concat());

        assert_eq!(decode::<String>(1, "c", &moved), None);
    }
}
