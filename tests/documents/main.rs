//! Generated documents: `make docs` writes them, and each test here fails if one is out of date.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue has failed")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod configuration;
mod errors;
mod methods;
mod metrics;
mod names;
mod service_config;

use std::path::Path;
use std::{env, fs};

/// Name of the variable that makes each test write its document before it compares, if `1`.
const WRITE: &str = "TIDINGS_WRITE_DOCS";

/// Compares a document, named relative to the root of the repository, with its expected text.
fn assert_up_to_date(document: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    if env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Renamed into place: other tests read the document meanwhile.
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &path).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = || found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == text, "{document} is not up to date, run `make docs`; first difference: {:?}", differs());
}

/// Renders a Markdown table. Escapes bars in cells.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(N));
    let rows = rows.into_iter().map(|cells| line(&cells.map(|cell| cell.replace('|', "\\|"))));
    line(&head.map(str::to_owned)) + &rule + &rows.collect::<String>()
}

#[test]
fn a_bar_within_a_cell_is_escaped() {
    let text = table(["a", "b"], [["1|2".to_owned(), "3".to_owned()]]);

    assert_eq!(text, "| a | b |\n|---|---|\n| 1\\|2 | 3 |\n");
}
