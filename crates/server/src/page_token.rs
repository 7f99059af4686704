//! Page tokens: opaque, bound to the list they were made for, refused when altered.
//!
//! A token is its kind, its place, and the first eight bytes of a SHA-256 over the list's name and these. It hides nothing and
//! grants nothing: whoever makes one up gets a page that could have been asked for anyway. So a service still checks the place
//! as it checks any field.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

const CHECK: usize = 8;

/// Where a page begins, as bytes of which only its service knows the meaning.
pub trait Place: Sized {
    /// Appends it.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Reads all of these bytes; `None` if they are no such place.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Makes a token for the list called `list`; `kind` tells lists of one name apart, and the two ends of a page.
pub fn encode(kind: u8, list: &str, place: &impl Place) -> String {
    let mut bytes = vec![kind];
    place.write(&mut bytes);
    let check = check(list, &bytes);
    bytes.extend(check);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token of this kind for the list called `list`; `None` if it is none, was altered, or is of another list.
pub fn decode<P: Place>(kind: u8, list: &str, token: &str) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (said, given) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
    let (&first, place) = said.split_first()?;
    if first != kind || check(list, said) != *given {
        return None;
    }
    P::read(place)
}

/// The list's length stands first, so that nothing can be moved from the list to the place.
fn check(list: &str, said: &[u8]) -> [u8; CHECK] {
    let length = (list.len() as u64).to_be_bytes();
    let digest = Sha256::new().chain_update(length).chain_update(list).chain_update(said).finalize();
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest[..CHECK]);
    check
}

/// Numbers that are not negative, such as a time and a seq.
impl<const N: usize> Place for [i64; N] {
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
impl Place for String {
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

    /// Every text that differs from the token in one letter, in an additional one or in one that is missing.
    fn alterations(token: &str, letter: char) -> Vec<String> {
        let letter = letter.to_string();
        let mut altered = vec![format!("{token}{letter}"), format!("{letter}{token}"), token.to_uppercase()];
        for place in 0..token.len() {
            for with in ["", &letter] {
                let mut one = token.to_owned();
                one.replace_range(place..=place, with);
                altered.push(one);
            }
        }
        altered.retain(|altered| altered != token);
        altered
    }

    proptest! {
        #[test]
        fn a_token_gives_back_its_place_to_its_own_list_only(
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
        fn a_token_with_a_number_below_nothing_is_refused(number in i64::MIN..0) {
            prop_assert_eq!(decode::<[i64; 1]>(1, "lobby", &encode(1, "lobby", &[number])), None);
        }

        #[test]
        fn a_token_of_which_any_letter_was_altered_is_refused(
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
        fn no_text_makes_the_decoder_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for token in [text, URL_SAFE_NO_PAD.encode(bytes)] {
                prop_assert_eq!(decode::<[i64; 1]>(1, "lobby", &token), None);
                prop_assert_eq!(decode::<String>(1, "lobby", &token), None);
            }
        }
    }

    #[test]
    fn nothing_can_be_moved_from_the_list_to_the_place() {
        let token = encode(1, "bc", &"a".to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
        let (place, check) = bytes.split_at(bytes.len() - CHECK);
        let moved = URL_SAFE_NO_PAD.encode([place, b"b", check].concat());

        assert_eq!(decode::<String>(1, "c", &moved), None);
    }
}
