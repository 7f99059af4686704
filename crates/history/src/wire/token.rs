//! Page tokens: opaque, bound to the list they were made for, refused when altered.
//!
//! A token is its kind, its numbers, and the first eight bytes of a SHA-256 over these and the list's name. It hides
//! nothing and grants nothing: whoever makes one up gets a page that could have been asked for anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

const CHECK: usize = 8;

/// Makes a token for the list called `list`.
pub(super) fn encode<const N: usize>(kind: u8, list: &str, numbers: [i64; N]) -> String {
    let mut bytes = vec![kind];
    bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    let check = check(list, &bytes);
    bytes.extend(check);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token of the list called `list`; `None` if it is none, or says a number that none of ours does.
pub(super) fn decode<const N: usize>(kind: u8, list: &str, token: &str) -> Option<[i64; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (said, given) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
    let (&first, rest) = said.split_first()?;
    if first != kind || rest.len() != N * 8 || check(list, said) != *given {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(rest.chunks_exact(8)) {
        *number = i64::from_be_bytes(bytes.try_into().ok()?);
    }
    numbers.iter().all(|number| *number >= 0).then_some(numbers)
}

fn check(list: &str, said: &[u8]) -> [u8; CHECK] {
    let digest = Sha256::new().chain_update(said).chain_update(list).finalize();
    let mut check = [0; CHECK];
    check.copy_from_slice(&digest[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_gives_back_its_numbers_to_its_own_list_only(a in 0..i64::MAX, b in 0..i64::MAX, list in "[a-z]{1,8}") {
            let token = encode(1, &list, [a, b]);
            prop_assert_eq!(decode(1, &list, &token), Some([a, b]));
            prop_assert_eq!(decode::<2>(1, &format!("{list}x"), &token), None);
            prop_assert_eq!(decode::<2>(2, &list, &token), None);
        }

        #[test]
        fn a_token_with_a_number_below_nothing_is_refused(a in i64::MIN..0) {
            prop_assert_eq!(decode::<1>(1, "lobby", &encode(1, "lobby", [a])), None);
        }

        #[test]
        fn an_altered_token_is_refused(a in 0..i64::MAX, place in 0_usize..22, letter in "[A-Za-z0-9_-]") {
            let token = encode(1, "lobby", [a]);
            let mut altered = token.clone();
            altered.replace_range(place..=place, &letter);
            prop_assume!(altered != token);
            prop_assert_eq!(decode::<1>(1, "lobby", &altered), None);
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text in ".*") {
            let _ = decode::<1>(1, "lobby", &text);
        }
    }
}
