//! `deploy/service_config.json`: timeouts and retries of each method for gRPC clients of any
//! language.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_proto::{METHODS, Method, Retry};

use crate::assert_up_to_date;

/// Four attempts at about 0, 100, 300 and 700 ms: enough to find another instance. Longer outages
/// are the caller's decision.
fn retry_policy() -> Value {
    json!({
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    })
}

/// One retry per five successful calls, as in the Rust client; none after fifty failures in a row.
fn retry_throttling() -> Value {
    json!({ "maxTokens": 100, "tokenRatio": 0.2 })
}

/// Returns timeout and retry of a method; `None` for a stream, which only its reader can resume.
fn policy(method: &Method) -> Option<(Duration, bool)> {
    Some((method.cap()?, method.retry == Retry::Safe))
}

fn service_config() -> String {
    let mut policies: Vec<_> = METHODS.iter().filter_map(policy).collect();
    policies.sort_unstable();
    policies.dedup();
    let methods = policies.into_iter().map(|(cap, retried)| {
        let names = METHODS.iter().filter(|method| policy(method) == Some((cap, retried)));
        let names = names.map(|method| json!({ "service": method.contract(), "method": method.short_name() }));
        let mut config = json!({ "name": names.collect::<Vec<_>>(), "timeout": format!("{}s", cap.as_secs_f64()) });
        if retried {
            config["retryPolicy"] = retry_policy();
        }
        config
    });
    let config = json!({
        "loadBalancingConfig": [{ "round_robin": {} }],
        "retryThrottling": retry_throttling(),
        "methodConfig": methods.collect::<Vec<_>>(),
    });
    format!("{config:#}\n")
}

#[test]
fn deploy_service_config_json_is_up_to_date() {
    assert_up_to_date("deploy/service_config.json", &service_config());
}

/// A call to a closed port, with the service config from standard input; prints the error.
const CALL: &str = r#"
import grpc, sys
channel = grpc.insecure_channel("ipv4:127.0.0.1:1", options=[("grpc.service_config", sys.stdin.read())])
try:
    channel.unary_unary("/tidings.user.v1.UserService/CreateUser", bytes, bytes)(b"", timeout=10)
except grpc.RpcError as error:
    print(error.details())
"#;

/// Returns the error of a grpcio call with this service config.
fn grpcio_error(config: &str) -> String {
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", CALL]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn grpcio_accepts_the_config_and_refuses_a_malformed_one() {
    if !Command::new("python3")
        .args(["-c", "import grpc"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|ended| ended.success())
    {
        eprintln!("grpcio_accepts_the_config_and_refuses_a_malformed_one: skipped, python3 has no module grpcio");
        return;
    }
    let config = service_config();
    let malformed = config.replace("\"maxAttempts\": 4", "\"maxAttempts\": 1");

    let (taken, refused) = (grpcio_error(&config), grpcio_error(&malformed));

    assert!(taken.contains("Connection refused") && !taken.contains("service config"), "{taken}");
    assert!(refused.contains("service config") && refused.contains("maxAttempts"), "{refused}");
}
