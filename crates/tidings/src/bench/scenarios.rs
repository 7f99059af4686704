//! The scenarios as the command line names and lists them.

use std::fmt::Write as _;

use tidings_load::{SCENARIOS, Scenario};

/// Parses the name of a scenario.
///
/// # Errors
/// There is no such scenario; the text suggests a similar name.
pub(super) fn parse(name: &str) -> Result<&'static Scenario, String> {
    /// Least Jaro-Winkler similarity (1: equal) of a name that is suggested.
    const SIMILARITY_MIN: f64 = 0.8;
    if let Some(scenario) = Scenario::find(name) {
        return Ok(scenario);
    }
    let similarity = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = SCENARIOS.iter().map(|scenario| scenario.name).max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    Err(match nearest.filter(|nearest| similarity(nearest) >= SIMILARITY_MIN) {
        Some(nearest) => format!("unknown scenario; did you mean {nearest}?"),
        None => "unknown scenario; `tidings bench --list` lists all".to_owned(),
    })
}

/// Renders the scenarios, one per line.
pub(super) fn list() -> String {
    SCENARIOS.iter().fold(String::new(), |mut text, scenario| {
        let _ = writeln!(text, "  {:<21} {}", scenario.name, scenario.about);
        text
    })
}

/// Renders the scenarios with the methods of each.
pub(super) fn methods() -> String {
    let lines = SCENARIOS.iter().map(|Scenario { name, about, methods, .. }| {
        format!("{name:<21} {about}\n{:<21}   {}", "", methods.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        assert_eq!(parse("get-user").map(|scenario| scenario.name), Ok("get-user"));
        assert!(parse("get-usr").is_err_and(|hint| hint.contains("did you mean get-user")));
        assert!(parse("frobnicate").is_err_and(|hint| hint.contains("--list")));
    }
}
