//! The documents that are written from the code, so that they are never wrong: `make docs` writes them, and each test here
//! says that one is as it would be written now.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

mod configuration;
mod errors;
mod methods;
mod metrics;
mod names;
mod service_config;

use std::path::Path;
use std::{env, fs};

/// Set to `1`, a test writes its document instead of comparing it.
const WRITE: &str = "TIDINGS_WRITE_DOCS";

/// Compares a document, named from the root of the repository, with what it should say.
fn assert_up_to_date(document: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    if env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = || found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == text, "{document} is not up to date, run `make docs`; first difference: {:?}", differs());
}

/// A table in Markdown. Text that holds a bar can not stand in a cell as it is.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(N));
    let rows = rows.into_iter().map(|cells| line(&cells.map(|cell| cell.replace('|', "\\|"))));
    line(&head.map(str::to_owned)) + &rule + &rows.collect::<String>()
}

#[test]
fn a_bar_in_a_cell_ends_no_cell() {
    let text = table(["a", "b"], [["1|2".to_owned(), "3".to_owned()]]);

    assert_eq!(text, "| a | b |\n|---|---|\n| 1\\|2 | 3 |\n");
}
