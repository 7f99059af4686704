//! Handles: their characters, and the key under which each is unique.
//!
//! A handle is stored in Unicode's composed form (NFC), so that equal text has equal bytes however
//! it was typed. It is unique under *canonical caseless matching* (Unicode 3.13, D145): decomposed,
//! fully case folded, composed again. For ASCII that is lower case. Only assigned characters are
//! allowed, and Unicode never changes their folding or composition: a stored key stays the key of
//! its handle.

use std::borrow::Cow;
use std::fmt;

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};
use icu_properties::CodePointSetData;
use icu_properties::props::{
    DefaultIgnorableCodePoint, EnumeratedProperty as _, GeneralCategory, GeneralCategoryGroup,
};

/// Limit of characters (code points) of a composed handle: about as many as are read at once.
pub const HANDLE_CHARS_MAX: usize = 32;
/// Limit of bytes of a composed handle: the largest UTF-8 size of its characters.
const HANDLE_BYTES_MAX: usize = 4 * HANDLE_CHARS_MAX;
/// Limit of bytes before composition, which joins at most four characters into one.
const GIVEN_BYTES_MAX: usize = 4 * HANDLE_BYTES_MAX;

/// Letters, their marks, and decimal digits, of any script.
const LEGAL: GeneralCategoryGroup =
    GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Mark).union(GeneralCategoryGroup::DecimalNumber);

/// Composes a handle; `None` if it is invalid.
///
/// A composed handle has 1 to 32 characters: letters, marks and decimal digits of any script, and
/// `._-`. Invisible characters are invalid: controls, joiners, fillers, variation selectors, and
/// controls of direction. The first character is no mark, which would be drawn on the text before
/// the handle.
pub fn compose(given: &str) -> Option<Cow<'_, str>> {
    if given.len() > GIVEN_BYTES_MAX {
        return None;
    }
    let handle = ComposingNormalizer::new_nfc().normalize(given);
    let first = handle.chars().next()?;
    let fits = handle.chars().count() <= HANDLE_CHARS_MAX && handle.len() <= HANDLE_BYTES_MAX;
    let begins_visibly = !GeneralCategoryGroup::Mark.contains(GeneralCategory::for_char(first));
    (fits && begins_visibly && handle.chars().all(is_legal)).then_some(handle)
}

fn is_legal(character: char) -> bool {
    const INVISIBLE: icu_properties::CodePointSetDataBorrowed<'static> =
        CodePointSetData::new::<DefaultIgnorableCodePoint>();
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || "._-".contains(character);
    }
    LEGAL.contains(GeneralCategory::for_char(character)) && !INVISIBLE.contains(character)
}

/// The case-folded form of a handle, under which it is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleKey(String);

impl HandleKey {
    /// Computes the key of a handle, or of a prefix of one.
    pub fn of(handle: &str) -> Self {
        if handle.is_ascii() {
            return Self(handle.to_ascii_lowercase());
        }
        let decomposed = DecomposingNormalizer::new_nfd().normalize(handle);
        let folded = CaseMapper::new().fold_string(&decomposed);
        Self(ComposingNormalizer::new_nfc().normalize(&folded).into_owned())
    }

    /// Wraps a key that was computed before.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// Borrows the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every character allowed in a handle.
    fn legal() -> impl Iterator<Item = char> {
        ('\0'..=char::MAX).filter(|character| is_legal(*character))
    }

    fn key(handle: &str) -> String {
        HandleKey::of(handle).into_string()
    }

    /// Strings of allowed characters in any order, also too long ones, and arbitrary strings.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[\\p{L}\\p{M}\\p{Nd}._-]{0,40}", "[a-zA-ZßẞſıİµκϰΣσςᾳᾼ\u{300}-\u{345}]{0,12}", ".*"]
    }

    #[test]
    fn handles_that_differ_in_case_only_have_one_key() {
        for (one, other) in [
            ("Ada.L", "aDA.l"),
            ("Grüße", "GRÜSSE"),
            ("Grüße", "gru\u{308}ẞe"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
            ("Å", "a\u{30a}"),
            ("ΑΙΔΗΣ", "ᾼδησ"),
            ("ǅungla", "ǆUNGLA"),
            ("ꭰꭱ", "ᎠᎡ"),
            ("ﬀ", "FF"),
            ("ᾳ\u{323}", "α\u{323}ι"),
            ("Жук_7", "жУК_7"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        for (one, other) in
            [("ada", "adam"), ("a", "а"), ("1", "١"), ("a_b", "a-b"), ("é", "e"), ("ı", "i"), ("Ａ", "A")]
        {
            assert_ne!(key(one), key(other), "{one} {other}");
        }
    }

    #[test]
    fn the_key_of_ascii_is_lower_case() {
        let ascii: String = ('\0'..='\x7f').collect();

        assert_eq!(key(&ascii), ascii.to_ascii_lowercase());
        assert_eq!(CaseMapper::new().fold_string(&ascii), ascii.to_ascii_lowercase());
    }

    #[test]
    fn a_decomposed_handle_is_stored_composed() {
        assert_eq!(compose("Gru\u{308}ße").unwrap(), "Grüße");
        assert_eq!(compose("\u{1112}\u{1161}\u{11ab}").unwrap(), "한");
        assert_eq!(compose(&"\u{3b1}\u{313}\u{300}\u{345}".repeat(32)).unwrap().chars().count(), 32);
        assert_eq!(compose("\u{212b}").unwrap(), "Å");
    }

    #[test]
    fn letters_marks_and_digits_of_any_script_and_three_signs_pass() {
        for handle in [
            "a",
            "Ada.L",
            "...",
            "-",
            "0",
            "Grüße",
            "Жук",
            "李小龍",
            "さくら",
            "ชื่อ",
            "हिन्दी",
            "עברית",
            "العربية",
            "٣४",
            "𐐷𞤢",
            "ꭰ",
        ] {
            assert_eq!(compose(handle).as_deref(), Some(handle));
        }
    }

    #[test]
    fn invisible_characters_and_symbols_are_refused() {
        let refused = [
            "",
            "no spaces",
            "a\0",
            "a\n",
            "a/b",
            "a@b",
            "{a}",
            "a*",
            "a%",
            "a,b",
            "½",
            "Ⅷ",
            "①",
            "€",
            "☕",
            "👍",
            "a\u{a0}b",
            "\u{301}a",
            "\u{64b}",
            // soft hyphen, joiners, marks of direction, word joiner, byte order mark
            "a\u{ad}b",
            "a\u{200b}b",
            "a\u{200c}b",
            "a\u{200d}b",
            "a\u{200e}b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{61c}b",
            "a\u{2060}b",
            "\u{feff}a",
            // invisible letters and marks: fillers, joiners, selectors
            "a\u{115f}b",
            "a\u{1160}b",
            "a\u{3164}b",
            "a\u{ffa0}b",
            "a\u{34f}b",
            "a\u{fe0f}b",
            "a\u{180b}b",
            "a\u{e0100}b",
            "a\u{17b4}b",
            // private use, unassigned, noncharacter, replacement character
            "\u{e000}",
            "\u{378}",
            "\u{10ffff}",
            "\u{fffd}",
        ];
        for handle in refused {
            assert_eq!(compose(handle), None, "{handle:?}");
        }
    }

    #[test]
    fn a_composed_handle_has_at_most_32_characters() {
        for character in ["a", "é", "e\u{301}", "李", "𐐷"] {
            assert_eq!(compose(&character.repeat(32)).unwrap().chars().count(), 32, "{character}");
            assert_eq!(compose(&character.repeat(33)), None, "{character}");
        }
        assert_eq!(compose(&"𐐷".repeat(32)).unwrap().len(), HANDLE_BYTES_MAX);
        assert_eq!(compose(&"a".repeat(1 << 20)), None);
    }

    #[test]
    fn all_cases_of_a_character_have_one_key_which_is_stable() {
        for character in legal() {
            let given = character.to_string();
            let upper_and_lower = given.to_uppercase().to_lowercase();
            assert_eq!(key(&key(&given)), key(&given), "{given:?}");
            assert!(key(&given).as_str() < "\u{10ffff}");
            // Dotless i upper-cases to I, which folds to the dotted i.
            if given != "ı" {
                assert_eq!(key(&upper_and_lower), key(&given), "{given:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn composing_and_folding_are_idempotent(given in texts()) {
            let folded = key(&given);
            prop_assert_eq!(&key(&folded), &folded);
            if let Some(handle) = compose(&given) {
                let again = compose(&handle);
                prop_assert_eq!(again.as_deref(), Some(&*handle));
                prop_assert_eq!(key(&handle), folded);
            }
        }

        #[test]
        fn upper_and_lower_case_have_one_key(given in "[\\p{L}\\p{M}\\p{Nd}._-]{1,32}") {
            // The iota subscript becomes a separate letter, to which following marks then belong.
            let decomposed = DecomposingNormalizer::new_nfd().normalize(&given).into_owned();
            prop_assume!(!decomposed.contains(['ı', '\u{345}']));
            prop_assert_eq!(key(&given.to_uppercase()), key(&given.to_lowercase()));
            prop_assert_eq!(key(&given.to_uppercase()), key(&given));
        }

        #[test]
        fn a_composed_handle_is_within_limits_and_visible(given in texts()) {
            if let Some(handle) = compose(&given) {
                prop_assert!((1..=HANDLE_CHARS_MAX).contains(&handle.chars().count()));
                prop_assert!(handle.len() <= HANDLE_BYTES_MAX);
                prop_assert!(!handle.contains(char::is_control) && !handle.contains(char::is_whitespace));
            }
        }
    }
}
