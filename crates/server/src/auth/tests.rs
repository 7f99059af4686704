//! Tokens against headers; that they are read again is tested with a whole server.

use std::fs;

use tempfile::TempDir;
use tidings_proto::METHODS;
use tidings_status::Failure;
use tonic::Code;

use super::*;

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.short_name() == name)
}

/// Tokens with these scopes, each with the name `t` and its place.
fn tokens(scopes: &[&str]) -> (Tokens, Vec<Secret>) {
    let secrets: Vec<_> = scopes.iter().map(|_| Secret::generate()).collect();
    let lines = scopes.iter().zip(&secrets).enumerate().map(|(place, (scopes, secret))| {
        Line::new(&format!("t{place}"), secret.hash(), scopes.parse().unwrap()).unwrap().to_string()
    });
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    (Tokens::open(&path).unwrap(), secrets)
}

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
}

fn bearing(secret: &Secret) -> HeaderMap {
    headers(&[&format!("Bearer {}", secret.reveal())])
}

#[test]
fn each_of_several_tokens_is_known_by_its_name() {
    let (tokens, secrets) = tokens(&["lock:read"; 3]);

    for (place, secret) in secrets.iter().enumerate() {
        let name = tokens.check(&bearing(secret), method("GetLock")).unwrap();
        assert_eq!(&*name, format!("t{place}"));
    }
}

#[test]
fn a_call_without_a_token_that_is_known_is_unauthenticated() {
    let (tokens, secrets) = tokens(&["lock:read"]);
    let secret = secrets[0].reveal();

    for (values, refusal) in [
        (vec![], Refusal::NoToken),
        (vec!["Basic YWRhOmFkYQ==".to_owned()], Refusal::NoToken),
        (vec![secret.to_owned()], Refusal::NoToken),
        (vec!["Bearer ".to_owned()], Refusal::UnknownToken),
        (vec![format!("Bearer {secret}x")], Refusal::UnknownToken),
        (vec![format!("Bearer {secret}"); 2], Refusal::UnknownToken),
    ] {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let refused = tokens.check(&headers(&values), method("GetLock")).unwrap_err();
        assert_eq!(refused, refusal, "{} values", values.len());
        let failure = Failure::from(&refused.reply("/tidings.lock.v1.LockService/GetLock").into_status());
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    }
    assert!(tokens.check(&headers(&[&format!("bearer {secret}")]), method("GetLock")).is_ok());
}

#[test]
fn a_call_beyond_the_scopes_of_its_token_is_denied_and_the_scope_is_named() {
    let (tokens, secrets) = tokens(&["lock:read,user:write"]);

    let refused = tokens.check(&bearing(&secrets[0]), method("AcquireLock")).unwrap_err();

    let failure = Failure::from(&refused.reply("/tidings.lock.v1.LockService/GetLock").into_status());
    assert_eq!((failure.code, failure.reason.as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert_eq!(failure.metadata["scope"], "lock:write");
}

#[test]
fn of_a_method_that_does_not_exist_only_callers_with_a_token_are_told() {
    let (tokens, secrets) = tokens(&["lock:read"]);

    assert!(tokens.check(&bearing(&secrets[0]), None).is_ok());
    assert_eq!(tokens.check(&headers(&[]), None), Err(Refusal::NoToken));
}

#[test]
fn a_list_without_tokens_lets_nobody_in() {
    let (tokens, _) = tokens(&[]);

    assert_eq!(tokens.check(&bearing(&Secret::generate()), None), Err(Refusal::UnknownToken));
}

#[test]
fn a_token_that_stands_twice_spoils_the_list() {
    let line = format!("one {} lock:read", "0".repeat(64));
    let (_, problem) = List::read(format!("{line}\n# the same\n{line}").as_bytes()).err().unwrap();

    assert_eq!(problem, "each token once, but line 3 has that of line 1");
}

#[test]
fn neither_tokens_nor_their_hashes_are_seen_in_what_a_program_prints_of_them() {
    let (tokens, secrets) = tokens(&["lock:read"]);
    let secret = &secrets[0];
    let printed = format!("{tokens:?} {secret:?} {:?} {:?}", secret.hash(), tokens.0.now().0);

    assert!(!printed.contains(&secret.reveal()[8..]) && !printed.contains(&secret.hash().hex()), "{printed}");
}

#[test]
fn a_list_has_a_limit() {
    let line = |n| format!("one {n:064x} lock:read");
    let lines = |count| (0..count).map(line).collect::<Vec<_>>().join("\n");

    assert!(List::read(lines(TOKENS_MAX).as_bytes()).is_ok());
    let (_, problem) = List::read(lines(TOKENS_MAX + 1).as_bytes()).err().unwrap();
    assert_eq!(problem, "at most 256 tokens, got 257");
}
