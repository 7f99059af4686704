//! The summary that `tidings up` prints when everything is ready: addresses, and five example
//! calls.

use std::env;
use std::fmt::Write as _;

use tidings_devstack::Devstack;

use super::children::ServiceAddress;

/// Example calls that work in this order on an empty installation: service, method, request.
const CALLS: [(&str, &str, &str); 5] = [
    ("user", "user.v1.UserService/CreateUser", r#"{"user": {"id": "zoe", "display_name": "Zoe Washburne"}}"#),
    (
        "history",
        "history.v1.ConversationService/CreateConversation",
        r#"{"conversation": {"id": "hall", "kind": "KIND_OPEN"}}"#,
    ),
    (
        "history",
        "history.v1.HistoryService/AppendMessage",
        r#"{"conversation_id": "hall", "sender_id": "zoe", "client_message_id": "1", "body": {"text": "hello"}}"#,
    ),
    ("broadcast", "broadcast.v1.BroadcastService/GetChannel", r#"{"name": "conversation/hall"}"#),
    ("lock", "lock.v1.LockService/AcquireLock", r#"{"name": "jobs/nightly", "owner": "zoe"}"#),
];

/// Returns the summary text.
pub(super) fn banner(addresses: &[ServiceAddress], stack: &Devstack, metrics: Option<u16>) -> String {
    let tidings = program();
    let mut lines: Vec<String> = vec!["Tidings is up.".to_owned(), String::new()];
    for (name, address) in addresses {
        let metrics = metrics.map(|offset| format!("   metrics http://{}:{}/", address.ip(), address.port() + offset));
        lines.push(format!("{name:<9} {address}{}", metrics.unwrap_or_default()));
    }
    lines.push(format!("{:<9} {}", "postgres", stack.postgres().url("tidings_user")));
    lines.push(format!("{:<9} {}", "redis", stack.redis().url()));
    lines.push(format!("{:<9} {}", "logs", stack.dir().display()));
    let mut text = framed(&lines);
    let _ = writeln!(text, "\nExample calls:");
    for (service, method, request) in CALLS {
        if let Some((_, address)) = addresses.iter().find(|(name, _)| *name == service) {
            let _ = writeln!(text, "  {tidings} call --addr {address} {method} '{request}'");
        }
    }
    let _ = writeln!(text, "\nThe same with grpcurl:");
    for (service, method, request) in CALLS {
        if let Some((_, address)) = addresses.iter().find(|(name, _)| *name == service) {
            let _ = writeln!(text, "  grpcurl -plaintext -d '{request}' {address} tidings.{method}");
        }
    }
    text.push_str("\nCtrl-C stops everything.");
    text
}

/// Returns the path of this program, relative to the current directory if it is below.
fn program() -> String {
    let Ok(path) = env::current_exe() else {
        return "tidings".to_owned();
    };
    let here = env::current_dir().ok();
    let relative = here.as_ref().and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(&path).display().to_string()
}

/// Draws a box around lines.
fn framed(lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let edge = "─".repeat(width + 2);
    let mut text = format!("╭{edge}╮\n");
    for line in lines {
        let _ = writeln!(text, "│ {line:<width$} │");
    }
    let _ = writeln!(text, "╰{edge}╯");
    text
}
