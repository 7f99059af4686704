//! `tidings user` against an in-memory service: output, files and exit codes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings_proto::user::User;

use crate::fake::{Fake, FakeFaults};
use crate::{CommandResult, command, ended, tidings};

/// Creates a file in a new directory.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// Imports a file, with a file of rejects.
fn import(address: &str, file: &Path, rejects: &Path) -> CommandResult {
    let arguments = ["user", "import", "--quiet", "--patience", "100ms", "--addr", address, "--rejects"];
    ended(&command(&arguments).arg(rejects).arg(file).output().unwrap())
}

/// The users that cannot be read are named in the error.
#[test]
fn get_prints_the_users_that_can_be_read() {
    let fake =
        Fake::start(FakeFaults { unreadable: ["bob".to_owned(), "eve".to_owned()].into(), ..FakeFaults::default() });
    fake.store().users.insert("ada".into(), User { id: "ada".into(), ..User::default() });

    let run = tidings(&["user", "get", "bob", "ada", "eve", "nobody", "--addr", &fake.address()]);

    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.out.lines().nth(1).is_some_and(|line| line.starts_with("ada ")), "{run:?}");
    assert!(run.err.contains("could not read: bob, eve; no such user: nobody"), "{run:?}");
}

/// No user is created from the lines after the quote.
#[test]
fn an_unclosed_quote_is_reported_by_line() {
    let fake = Fake::start(FakeFaults::default());
    let (dir, csv) = file("staff.csv", "id,bio\nada,x\nbob,\"Bob\ncat,x\n");
    let rejects = dir.path().join("rejects.csv");

    let run = import(&fake.address(), &csv, &rejects);

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("line 3: bio: the quote that opens this cell is not closed"), "{run:?}");
    assert_eq!(fake.store().users.keys().collect::<Vec<_>>(), ["ada"]);
    assert!(fs::read_to_string(&rejects).unwrap().starts_with("id,bio\nbob,\"Bob\ncat,x\n"));
}

/// No user is created from the lines after its start.
#[test]
fn a_row_that_is_too_long_ends_the_import() {
    let fake = Fake::start(FakeFaults::default());
    let text = format!("id,bio\nada,x\nbob,\"Bob\n{}", "cat,x\n".repeat(20_000));
    let (dir, csv) = file("staff.csv", &text);

    let run = import(&fake.address(), &csv, &dir.path().join("rejects.csv"));

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("the record that begins in line 3 is longer than 65536 bytes"), "{run:?}");
    assert_eq!(fake.store().users.keys().collect::<Vec<_>>(), ["ada"]);
}

#[test]
fn an_import_without_a_service_keeps_earlier_rejects() {
    let (dir, csv) = file("staff.csv", "id\nada\n");
    let rejects = dir.path().join("rejects.csv");
    fs::write(&rejects, "earlier\n").unwrap();

    assert_eq!(import("127.0.0.1:1", &csv, &rejects).code, 3);

    assert_eq!(fs::read_to_string(&rejects).unwrap(), "earlier\n");
}

#[test]
fn the_file_of_rejects_cannot_be_the_standard_input() {
    let (_dir, csv) = file("staff.csv", "id\nada\n");

    let mut command = command(&["user", "import", "-", "--format", "csv", "--rejects"]);
    let run = ended(&command.arg(&csv).stdin(File::open(&csv).unwrap()).output().unwrap());

    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.err.contains("the file is the input of the import"), "{run:?}");
    assert_eq!(fs::read_to_string(&csv).unwrap(), "id\nada\n");
}
