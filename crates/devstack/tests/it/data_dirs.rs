//! Data directories in unusual states, and missing programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tidings_devstack::{Devstack, Error, Options, SearchPath};

use super::{eventually, execute, is_root, kept, query_text, skipped, start};

#[tokio::test]
async fn a_directory_that_the_servers_cannot_reach_works_by_symlink() {
    if !is_root() {
        return skipped("only root runs its servers as another user");
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let dir = home.path().join("clone/.tidings");
    let stack = Devstack::start(kept(&dir)).await.unwrap();
    execute(&stack, "CREATE TABLE kept AS SELECT 'committed' AS word").await;
    drop(stack);

    let stack = Devstack::start(kept(&dir)).await.unwrap();
    assert_eq!(query_text(&stack, "SELECT word FROM kept").await.unwrap(), "committed");
    let data = fs::read_link(dir.join("postgres")).unwrap();
    assert!(data.starts_with("/var/lib/tidings") && data.ends_with("postgres"), "{}", data.display());
    drop(stack);

    fs::remove_dir_all(&dir).unwrap();
    let stack = Devstack::start(kept(&dir)).await.unwrap();
    assert!(
        query_text(&stack, "SELECT word FROM kept").await.is_err(),
        "data of a removed directory must not come back"
    );
    drop(stack);
    fs::remove_dir_all(data.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn an_incomplete_data_directory_is_recreated() {
    let dir = reachable();
    for incomplete in ["postgres.new/base", "postgres/base"] {
        fs::create_dir_all(dir.path().join(incomplete)).unwrap();
    }
    fs::write(dir.path().join("owner.lock"), "").unwrap();
    fs::write(dir.path().join("postgres/PG_VERSION"), "15\n").unwrap();

    let stack = Devstack::start(kept(dir.path())).await.unwrap();

    assert_eq!(query_text(&stack, "SELECT 'ready'").await.unwrap(), "ready");
    assert!(!dir.path().join("postgres.new").exists());
}

#[tokio::test]
async fn data_that_no_stack_has_made_are_not_removed() {
    for name in ["postgres", "redis"] {
        let dir = reachable();
        let file = dir.path().join(name).join("notes.txt");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();

        for fresh in [true, false] {
            let error = Devstack::start(Options { fresh, ..kept(dir.path()) }).await.unwrap_err();

            assert!(matches!(error, Error::Foreign { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(!dir.path().join("owner.lock").exists(), "a refused directory stays as it is");
    }
}

#[tokio::test]
async fn a_stale_pid_file_does_not_prevent_a_start() {
    let dir = reachable();
    drop(Devstack::start(kept(dir.path())).await.unwrap());
    let file = dir.path().join("postgres/postmaster.pid");
    let dead = {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    for pid in [dead, std::process::id()] {
        fs::write(&file, format!("{pid}\n{}\n0\n0\n", dir.path().display())).unwrap();
        let stack = Devstack::start(kept(dir.path())).await.unwrap();
        assert_eq!(query_text(&stack, "SELECT 'ready'").await.unwrap(), "ready");
    }
}

#[tokio::test]
async fn a_missing_program_is_named_with_its_package() {
    let nothing = tempfile::tempdir().unwrap();
    let options = Options { search_path: SearchPath::only([nothing.path().to_owned()]), ..Options::temporary() };

    let error = Devstack::start(options).await.unwrap_err();

    let expected = "initdb is not installed: apt-get install postgresql (macOS: brew install postgresql)";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_outdated_program_is_named_with_its_version() {
    let old = tempfile::tempdir().unwrap();
    for (name, answer) in [("initdb", ""), ("postgres", "postgres (PostgreSQL) 14.9")] {
        let program = old.path().join(name);
        fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    let options = Options {
        search_path: SearchPath::only([old.path().to_owned(), "/usr/bin".into(), "/opt/homebrew/bin".into()]),
        ..Options::temporary()
    };

    let error = Devstack::start(options).await.unwrap_err();

    let line = error.to_string();
    assert!(line.contains("is postgres (PostgreSQL) 14.9, Postgres 15 or newer is required: apt-get"), "{line}");
}

#[tokio::test]
async fn a_full_disk_is_reported_in_one_line() {
    let Some(disk) = SmallDisk::mount() else {
        return skipped("only root can mount a small disk");
    };

    let error = Devstack::start(kept(&disk.0.join("stack"))).await.unwrap_err();

    let line = error.to_string();
    assert!(matches!(error, Error::StartFailed { server: "initdb", .. }), "{line}");
    assert!(line.contains("No space left on device") && !line.contains('\n'), "{line}");
    assert!(!disk.0.join("stack/postgres.new").exists());
}

#[tokio::test]
async fn a_temporary_directory_is_removed_with_its_stack() {
    let stack = start(tidings_devstack::Dir::Temporary).await;
    let dir = stack.dir().to_owned();
    assert!(dir.join("postgres.log").exists());

    drop(stack);

    assert!(!dir.exists());
}

/// A directory that the servers' user can enter, so that the data are in it.
fn reachable() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// A disk of 8 MB that is unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = reachable();
        let mount = ["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs"];
        let mounted = is_root() && Command::new("mount").args(mount).arg(dir.path()).status().unwrap().success();
        mounted.then(|| Self(dir.keep()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A guard may run for some milliseconds longer than its server.
        eventually("the disk is free", || {
            let unmounted = Command::new("umount").arg(&self.0).output();
            unmounted.is_ok_and(|output| output.status.success())
        });
        let _ = fs::remove_dir(&self.0);
    }
}
