//! `tidings user` against a service in memory: what is printed, what is kept, and how it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings_proto::user::User;

use crate::fake::{Fake, Faults};
use crate::{Run, command, ended, tidings};

/// A directory with a file in it.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// Imports a file, and keeps what is refused.
fn import(address: &str, file: &Path, rejects: &Path) -> Run {
    let arguments = ["user", "import", "--quiet", "--patience", "100ms", "--addr", address, "--rejects"];
    ended(&command(&arguments).arg(rejects).arg(file).output().unwrap())
}

#[test]
fn those_who_can_be_read_are_printed_and_the_others_are_named() {
    let fake = Fake::start(Faults { unreadable: ["bob".to_owned(), "eve".to_owned()].into(), ..Faults::default() });
    fake.store().users.insert("ada".into(), User { id: "ada".into(), ..User::default() });

    let run = tidings(&["user", "get", "bob", "ada", "eve", "nobody", "--addr", &fake.address()]);

    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.out.lines().nth(1).is_some_and(|line| line.starts_with("ada ")), "{run:?}");
    assert!(run.err.contains("can not be read now: bob, eve; no such user: nobody"), "{run:?}");
}

#[test]
fn a_quote_that_is_not_closed_is_told_by_line_and_nobody_is_created_of_what_follows() {
    let fake = Fake::start(Faults::default());
    let (dir, csv) = file("staff.csv", "id,bio\nada,x\nbob,\"Bob\ncat,x\n");
    let rejects = dir.path().join("rejects.csv");

    let run = import(&fake.address(), &csv, &rejects);

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("line 3: bio: a quote opens this cell and is never closed"), "{run:?}");
    assert_eq!(fake.store().users.keys().collect::<Vec<_>>(), ["ada"]);
    assert!(fs::read_to_string(&rejects).unwrap().starts_with("id,bio\nbob,\"Bob\ncat,x\n"));
}

#[test]
fn a_row_that_has_no_end_ends_the_import_and_nobody_is_created_of_what_follows() {
    let fake = Fake::start(Faults::default());
    let text = format!("id,bio\nada,x\nbob,\"Bob\n{}", "cat,x\n".repeat(20_000));
    let (dir, csv) = file("staff.csv", &text);

    let run = import(&fake.address(), &csv, &dir.path().join("rejects.csv"));

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("the record that begins in line 3 is longer than 65536 bytes"), "{run:?}");
    assert_eq!(fake.store().users.keys().collect::<Vec<_>>(), ["ada"]);
}

#[test]
fn an_earlier_file_of_rejects_outlives_an_import_that_reaches_no_service() {
    let (dir, csv) = file("staff.csv", "id\nada\n");
    let rejects = dir.path().join("rejects.csv");
    fs::write(&rejects, "earlier\n").unwrap();

    assert_eq!(import("127.0.0.1:1", &csv, &rejects).code, 3);

    assert_eq!(fs::read_to_string(&rejects).unwrap(), "earlier\n");
}

#[test]
fn the_rejects_of_standard_input_can_not_be_the_file_that_it_is() {
    let (_dir, csv) = file("staff.csv", "id\nada\n");

    let mut command = command(&["user", "import", "-", "--format", "csv", "--rejects"]);
    let run = ended(&command.arg(&csv).stdin(File::open(&csv).unwrap()).output().unwrap());

    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.err.contains("it is the file that is imported"), "{run:?}");
    assert_eq!(fs::read_to_string(&csv).unwrap(), "id\nada\n");
}
