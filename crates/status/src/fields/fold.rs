//! Names items of a list together that are malformed in the same way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Violation;

/// Folds violations of one description at `list[3].field`, `list[4].field`, ... into one at `list[3-4].field`.
///
/// What is folded stands where its first item stood.
pub(super) fn fold(violations: Vec<Violation>) -> Vec<Violation> {
    let mut folded: Vec<(Violation, Vec<usize>)> = Vec::new();
    let mut places: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for violation in violations {
        let Some((list, item, rest)) = indexed(&violation.field) else {
            folded.push((violation, Vec::new()));
            continue;
        };
        let key = (list.to_owned(), rest.to_owned(), violation.description.clone());
        let place = *places.entry(key).or_insert_with(|| {
            folded.push((violation, Vec::new()));
            folded.len() - 1
        });
        folded[place].1.push(item);
    }
    folded.into_iter().map(|(violation, items)| named(violation, &items)).collect()
}

/// The parts of `list[3].field`: `list`, 3 and `.field`.
fn indexed(field: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = field.split_once('[')?;
    let (item, rest) = rest.split_once(']')?;
    Some((list, item.parse().ok()?, rest))
}

fn named(violation: Violation, items: &[usize]) -> Violation {
    let Some((list, _, rest)) = indexed(&violation.field).filter(|_| items.len() > 1) else {
        return violation;
    };
    let mut places = String::new();
    for run in items.chunk_by(|one, next| one + 1 == *next) {
        let separator = if places.is_empty() { "" } else { "," };
        let _ = match run {
            [one] => write!(places, "{separator}{one}"),
            [from, .., to] => write!(places, "{separator}{from}-{to}"),
            [] => Ok(()),
        };
    }
    Violation { field: format!("{list}[{places}]{rest}"), description: violation.description }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(fields: &[(&str, &str)]) -> Vec<String> {
        let violations = fields.iter().map(|(field, description)| Violation {
            field: (*field).to_owned(),
            description: (*description).to_owned(),
        });
        fold(violations.collect()).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn items_that_are_malformed_alike_are_named_together() {
        let fields =
            [("ids[0]", "x"), ("ids[3]", "x"), ("other", "x"), ("ids[4]", "x"), ("ids[5]", "x"), ("ids[6]", "y")];

        assert_eq!(folded(&fields), ["ids[0,3-5]: x", "other: x", "ids[6]: y"]);
    }

    #[test]
    fn fields_of_items_keep_their_names() {
        let fields = [("requests[1].body", "x"), ("requests[1].id", "x"), ("requests[2].body", "x")];

        assert_eq!(folded(&fields), ["requests[1-2].body: x", "requests[1].id: x"]);
    }
}
