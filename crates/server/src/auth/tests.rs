//! Tokens checked against headers. The reload of a changed list is tested with a whole server.

use std::fs;

use tempfile::TempDir;
use tidings_proto::METHODS;
use tidings_status::Failure;
use tonic::Code;

use super::*;

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.short_name() == name)
}

/// Creates tokens with these scopes; each is named `t` and its index.
fn tokens(scopes: &[&str]) -> (Tokens, Vec<Secret>) {
    let secrets: Vec<_> = scopes.iter().map(|_| Secret::generate()).collect();
    let lines = scopes.iter().zip(&secrets).enumerate().map(|(index, (scopes, secret))| {
        TokenEntry::new(&format!("t{index}"), secret.hash(), scopes.parse().unwrap()).unwrap().to_string()
    });
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    (Tokens::open(&path).unwrap(), secrets)
}

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
}

fn bearer_headers(secret: &Secret) -> HeaderMap {
    headers(&[&format!("Bearer {}", secret.reveal())])
}

#[test]
fn a_check_returns_the_name_of_the_token() {
    let (tokens, secrets) = tokens(&["lock:read"; 3]);

    for (index, secret) in secrets.iter().enumerate() {
        let name = tokens.check(&bearer_headers(secret), method("GetLock")).unwrap().name;
        assert_eq!(&*name, format!("t{index}"));
    }
}

#[test]
fn a_call_without_a_known_token_is_unauthenticated() {
    let (tokens, secrets) = tokens(&["lock:read"]);
    let secret = secrets[0].reveal();

    for (values, refusal) in [
        (vec![], AuthError::NoToken),
        (vec!["Basic YWRhOmFkYQ==".to_owned()], AuthError::NoToken),
        (vec![secret.to_owned()], AuthError::NoToken),
        (vec!["Bearer ".to_owned()], AuthError::UnknownToken),
        (vec![format!("Bearer {secret}x")], AuthError::UnknownToken),
        (vec![format!("Bearer {secret}"); 2], AuthError::UnknownToken),
    ] {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let refused = tokens.check(&headers(&values), method("GetLock")).unwrap_err();
        assert_eq!(refused, refusal, "{} values", values.len());
        let failure = Failure::from(&refused.reply("/tidings.lock.v1.LockService/GetLock").into_status());
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    }
    assert!(tokens.check(&headers(&[&format!("bearer {secret}")]), method("GetLock")).is_ok());
}

/// The error names the missing scope.
#[test]
fn a_call_beyond_the_scopes_of_its_token_is_denied() {
    let (tokens, secrets) = tokens(&["lock:read,user:write"]);

    let refused = tokens.check(&bearer_headers(&secrets[0]), method("AcquireLock")).unwrap_err();

    let failure = Failure::from(&refused.reply("/tidings.lock.v1.LockService/GetLock").into_status());
    assert_eq!((failure.code, failure.reason.as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert_eq!(failure.metadata["scope"], "lock:write");
}

#[test]
fn an_unknown_method_needs_a_token_but_no_scope() {
    let (tokens, secrets) = tokens(&["lock:read"]);

    assert!(tokens.check(&bearer_headers(&secrets[0]), None).is_ok());
    assert_eq!(tokens.check(&headers(&[]), None), Err(AuthError::NoToken));
}

#[test]
fn an_empty_list_refuses_every_token() {
    let (tokens, _) = tokens(&[]);

    assert_eq!(tokens.check(&bearer_headers(&Secret::generate()), None), Err(AuthError::UnknownToken));
}

#[test]
fn a_duplicate_token_makes_the_list_invalid() {
    let line = format!("one {} lock:read", "0".repeat(64));
    let (_, problem) = TokenList::parse(format!("{line}\n# the same\n{line}").as_bytes()).err().unwrap();

    assert_eq!(problem, "each token once, but line 3 repeats the token of line 1");
}

#[test]
fn debug_output_shows_neither_tokens_nor_hashes() {
    let (tokens, secrets) = tokens(&["lock:read"]);
    let secret = &secrets[0];
    let printed = format!("{tokens:?} {secret:?} {:?} {:?}", secret.hash(), tokens.0.current().0);

    assert!(!printed.contains(&secret.reveal()[8..]) && !printed.contains(&secret.hash().hex()), "{printed}");
}

#[test]
fn a_list_of_more_than_256_tokens_is_malformed() {
    let line = |n| format!("one {n:064x} lock:read");
    let lines = |count| (0..count).map(line).collect::<Vec<_>>().join("\n");

    assert!(TokenList::parse(lines(TOKENS_MAX).as_bytes()).is_ok());
    let (_, problem) = TokenList::parse(lines(TOKENS_MAX + 1).as_bytes()).err().unwrap();
    assert_eq!(problem, "at most 256 tokens, got 257");
}
