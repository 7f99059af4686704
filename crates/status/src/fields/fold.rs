//! Groups list items that have the same violation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Violation;

/// Folds violations with one description at `list[3].field`, `list[4].field`, ... into one at
/// `list[3-4].field`, which takes the position of the first.
pub(super) fn fold(violations: Vec<Violation>) -> Vec<Violation> {
    let mut folded: Vec<(Violation, Vec<usize>)> = Vec::new();
    let mut positions: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for violation in violations {
        let Some((list, item, rest)) = indexed(&violation.field) else {
            folded.push((violation, Vec::new()));
            continue;
        };
        let key = (list.to_owned(), rest.to_owned(), violation.description.clone());
        let position = *positions.entry(key).or_insert_with(|| {
            folded.push((violation, Vec::new()));
            folded.len() - 1
        });
        folded[position].1.push(item);
    }
    folded.into_iter().map(|(violation, items)| named(violation, &items)).collect()
}

/// Splits `list[3].field` into `list`, 3 and `.field`.
fn indexed(field: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = field.split_once('[')?;
    let (item, rest) = rest.split_once(']')?;
    Some((list, item.parse().ok()?, rest))
}

fn named(violation: Violation, items: &[usize]) -> Violation {
    let Some((list, _, rest)) = indexed(&violation.field).filter(|_| items.len() > 1) else {
        return violation;
    };
    let mut ranges = String::new();
    for run in items.chunk_by(|one, next| one + 1 == *next) {
        let separator = if ranges.is_empty() { "" } else { "," };
        let _ = match run {
            [one] => write!(ranges, "{separator}{one}"),
            [from, .., to] => write!(ranges, "{separator}{from}-{to}"),
            [] => Ok(()),
        };
    }
    Violation { field: format!("{list}[{ranges}]{rest}"), description: violation.description }
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
    fn items_with_the_same_violation_are_grouped() {
        let fields =
            [("ids[0]", "x"), ("ids[3]", "x"), ("other", "x"), ("ids[4]", "x"), ("ids[5]", "x"), ("ids[6]", "y")];

        assert_eq!(folded(&fields), ["ids[0,3-5]: x", "other: x", "ids[6]: y"]);
    }

    #[test]
    fn groups_keep_the_field_names_of_their_items() {
        let fields = [("requests[1].body", "x"), ("requests[1].id", "x"), ("requests[2].body", "x")];

        assert_eq!(folded(&fields), ["requests[1-2].body: x", "requests[1].id: x"]);
    }
}
