//! Tests of `tidings token`, and of the credentials that callers present.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{start, tidings};

/// Returns the arguments that create a token for the gateway, with `more` appended.
fn new<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["token", "new", "--name", "gateway", "--scope", "history:read", "--scope", "lock:read,lock:write"], more]
        .concat()
}

fn hash(token: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(token).into();
    let half = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
    format!("{:032x}{:032x}", half(&hash[..16]), half(&hash[16..]))
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn a_new_token_is_printed_with_its_line_for_the_token_list() {
    let run = tidings(&new(&[]));

    let words: Vec<_> = run.out.split_whitespace().collect();
    let ["token", token, "line", "gateway", known, scopes] = words[..] else { panic!("{run:?}") };
    assert!(token.starts_with("tidings_") && token.len() == 72, "{token}");
    assert_eq!((known, scopes), (hash(token).as_str(), "history:read,lock:read,lock:write"));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn two_tokens_are_never_equal() {
    let [one, other] = [tidings(&new(&[])), tidings(&new(&[]))];

    assert_ne!(one.out, other.out);
}

/// With `--out` and `--append` nothing is printed. The token file is readable by its owner only;
/// the list keeps its mode.
#[test]
fn token_and_line_are_written_to_files_instead_of_printed() {
    let dir = TempDir::new().unwrap();
    let (token, list) = (path(&dir, "gateway.token"), path(&dir, "tokens"));
    fs::write(&list, format!("# those of staging\nold {} *:read", "0".repeat(64))).unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o640)).unwrap();

    let run = tidings(&new(&["--out", &token, "--append", &list]));

    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", ""));
    let secret = fs::read_to_string(&token).unwrap();
    let line = format!("gateway {} history:read,lock:read,lock:write\n", hash(secret.trim()));
    assert_eq!(
        fs::read_to_string(&list).unwrap(),
        format!("# those of staging\nold {} *:read\n{line}", "0".repeat(64))
    );
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&token), mode(&list)), (0o600, 0o640));
}

#[test]
fn an_existing_token_file_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let (token, list) = (path(&dir, "gateway.token"), path(&dir, "tokens"));
    fs::write(&token, "tidings_1").unwrap();

    let run = tidings(&new(&["--out", &token, "--append", &list]));

    assert_eq!(run.code, 2);
    assert!(run.err.starts_with(&format!("tidings: --out: '{token}': File exists")), "{run:?}");
    assert_eq!(fs::read_to_string(&token).unwrap(), "tidings_1");
    assert!(!Path::new(&list).exists());
}

/// A file that is no token list stays unchanged, and the new token file is removed.
#[test]
fn a_file_that_is_no_token_list_stays_unchanged() {
    let dir = TempDir::new().unwrap();
    let (token, list) = (path(&dir, "gateway.token"), path(&dir, "other.token"));
    fs::write(&list, "tidings_1\n").unwrap();

    let run = tidings(&new(&["--out", &token, "--append", &list]));

    assert_eq!(run.code, 2);
    let expected = format!(
        "tidings: --append: '{list}': expected a token list, but in line 1: not three words separated by spaces"
    );
    assert!(run.err.starts_with(&expected), "{run:?}");
    assert_eq!(fs::read_to_string(&list).unwrap(), "tidings_1\n");
    assert!(!Path::new(&token).exists());
}

#[test]
fn tokens_created_concurrently_are_all_appended() {
    let dir = TempDir::new().unwrap();
    let list = path(&dir, "tokens");

    let runs: Vec<_> = (0..16).map(|_| start(&new(&["--append", &list]))).collect();
    let tokens: Vec<_> = runs.into_iter().map(|run| run.end().out).collect();

    let list = fs::read_to_string(&list).unwrap();
    assert_eq!(list.lines().count(), 16);
    for token in tokens {
        let token = token.split_whitespace().last().unwrap().to_owned();
        assert!(list.contains(&hash(&token)), "{list}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_wrong_name_or_scope_is_refused() {
    for (arguments, line) in [
        (["--name", "a b", "--scope", "*:read"], "tidings: --name: 'a b': expected 1 to 64 of [A-Za-z0-9._~-]\n"),
        (
            ["--name", "ada", "--scope", "*:all"],
            "tidings: --scope: '*:all': expected SERVICE:ACTION, of user, history, lock, broadcast, * and read, write, admin, relay, \
             got '*:all'\n",
        ),
    ] {
        let run = tidings(&[&["token", "new"][..], &arguments].concat());
        assert_eq!((run.code, run.err.as_str(), run.out.as_str()), (2, line, ""));
    }
}

#[test]
fn unusable_credentials_are_wrong_usage_in_every_verb() {
    let dir = TempDir::new().unwrap();
    let list = path(&dir, "tokens");
    fs::write(&list, format!("old {} *:read\n", "0".repeat(64))).unwrap();

    for verb in [&["call", "GetLock"][..], &["lock", "get", "nightly"], &["channel", "sub", "orders"]] {
        let run = tidings(&[verb, &["--addr", "https://127.0.0.1:1"]].concat());
        let expected =
            "tidings: --ca (TIDINGS_CALLER_CA): not given: expected a CA file to verify https://127.0.0.1:1\n";
        assert_eq!((run.code, run.err.as_str()), (2, expected), "{verb:?}");

        let run = tidings(&[verb, &["--addr", "127.0.0.1:1", "--token-file", &list]].concat());
        let expected = format!(
            "tidings: --token-file (TIDINGS_CALLER_TOKEN_FILE): '{list}': expected one token and nothing else, as `tidings \
             token new` prints it\n"
        );
        assert_eq!((run.code, run.err), (2, expected), "{verb:?}");
    }
}
