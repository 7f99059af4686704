//! The examples of the client as processes, beside real services: a lock that is held and lost, a
//! subscriber that is killed, a token that changes. `readme.rs` runs the commands that they show.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};

use tidings_client::{Caller, Endpoints, Policy};
use tidings_proto::broadcast::PublishRequest;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::secured::SecuredFiles;
use crate::service::{MAX_WAIT, TestService};
use crate::support::root;

/// The examples in `crates/client/examples`.
pub(crate) const NAMES: [&str; 4] = ["credentials", "get_user", "lock", "subscribe"];

/// Returns the executable of an example, which Cargo puts beside the tests.
///
/// # Panics
/// If it is not up to date: `cargo test --test suite` builds no examples.
pub(crate) fn executable(name: &str) -> PathBuf {
    let profile = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let (executable, source) = (profile.join("examples").join(name), root().join("crates/client/examples").join(name));
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let is_current = changed(&executable).is_ok_and(|built| built >= changed(&source.with_extension("rs")).unwrap());
    assert!(
        is_current,
        "{} is not built, or is older than its source; run `cargo test --workspace --all-features`, or first `cargo \
         build --workspace --all-features --examples`",
        executable.display()
    );
    executable
}

/// A running example. Killed on drop.
struct RunningExample {
    process: Child,
    output_lines: Lines<BufReader<ChildStdout>>,
}

impl RunningExample {
    fn start(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(executable(name))
            .args(arguments)
            .envs(variables.iter().copied())
            .env("RUST_LIB_BACKTRACE", "0") // it would be printed with the error
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output_lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, output_lines }
    }

    /// Returns the next line that it prints.
    async fn next_line(&mut self) -> String {
        let line = timeout(2 * MAX_WAIT, self.output_lines.next_line()).await.expect("the example prints a line");
        line.unwrap().expect("the example runs")
    }

    /// Waits until it prints a line that starts so.
    async fn wait_for_line(&mut self, start: &str) -> String {
        let found = async {
            loop {
                let line = self.next_line().await;
                if line.starts_with(start) {
                    return line;
                }
            }
        };
        timeout(2 * MAX_WAIT, found).await.unwrap_or_else(|_| panic!("no line starts with: {start}"))
    }

    /// Kills it (SIGKILL), and waits until it has ended.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Waits for its end; returns the success and the error output.
    async fn wait_for_exit(self) -> (bool, String) {
        let output = timeout(2 * MAX_WAIT, self.process.wait_with_output()).await.expect("the example ends").unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Returns the fencing token of a line `... with token TOKEN`.
fn token(line: &str) -> i64 {
    line.rsplit(' ').next().and_then(|token| token.parse().ok()).unwrap_or_else(|| panic!("no token in: {line}"))
}

#[tokio::test]
async fn the_lock_example_excludes_others_and_reports_a_loss() {
    let service = TestService::start_with_env("lock", &[], &[("TIDINGS_LOCK_FRESH_START", "true")]).await;
    let address = service.address.to_string();
    let lock = |owner, records| {
        RunningExample::start("lock", &["nightly", owner, records], &[("TIDINGS_LOCK_ADDR", &address)])
    };
    let mut before = lock("worker-0", "0");
    let first = token(&before.next_line().await);
    assert_eq!(before.wait_for_exit().await, (true, String::new()));

    let mut holder = lock("worker-1", "1000000");
    let second = token(&holder.wait_for_line("nightly is granted to worker-1").await);
    assert!(second > first, "{second} after {first}");
    let refused = lock("worker-2", "0").wait_for_exit().await;
    assert_eq!(refused, (false, "Error: nightly is held by worker-1\n".to_owned()));

    drop_keys(&service); // Redis loses all locks
    let (succeeded, error) = holder.wait_for_exit().await;
    assert!(!succeeded && error.starts_with("Error: nightly is lost, the work was stopped: "), "{error}");
}

/// Deletes the keys of a service.
fn drop_keys(service: &TestService) {
    let mut redis = redis::Client::open(service.stack().redis().url()).unwrap().get_connection().unwrap();
    let pattern = format!("{}:*", service.redis_prefix());
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(pattern).query(&mut redis).unwrap();
    assert!(!keys.is_empty(), "{} has keys", service.redis_prefix());
    redis::cmd("DEL").arg(keys).exec(&mut redis).unwrap();
}

/// Each message is in the file exactly once, and the loss of the channel is in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subscribe_example_resumes_after_kills_and_reports_a_loss() {
    const MESSAGES: usize = 300;
    let service = TestService::start("broadcast", &[]).await;
    let address = service.address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.txt");
    let subscribe = || {
        let variables = [("TIDINGS_BROADCAST_ADDR", address.as_str())];
        RunningExample::start("subscribe", &["orders/eu", file.to_str().unwrap()], &variables)
    };
    let channel = Caller::new(Endpoints::new(&address.parse().unwrap()), Policy::default());

    let caller = channel.clone();
    let all_published = tokio::spawn(async move {
        for number in 1..=MESSAGES {
            publish(&caller, format!("order {number}")).await;
        }
    });
    for kill in 1..=3 {
        let subscriber = subscribe();
        wait_for_lines(&file, kill * MESSAGES / 4).await;
        subscriber.kill().await;
    }
    let mut subscriber = subscribe();
    wait_for_lines(&file, MESSAGES).await;
    all_published.await.unwrap();
    let expected: Vec<_> = (1..=MESSAGES).map(|number| format!("{number} order {number}")).collect();
    assert_eq!(without_epoch(&file), expected);

    subscriber.wait_for_line("caught up with orders/eu").await;
    subscriber.kill().await;
    drop_keys(&service);
    publish(&channel, "after the loss".to_owned()).await;
    subscribe().wait_for_line("1 after the loss").await;
    let expected = ["0 missing: an unknown number of messages", "1 after the loss"];
    assert_eq!(without_epoch(&file)[MESSAGES..], expected);
}

async fn publish(channel: &Caller, text: String) {
    let request = PublishRequest {
        channel: "orders/eu".to_owned(),
        request_id: text.replace(' ', "-"),
        data: text.into(),
        ..Default::default()
    };
    let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
    channel.call("Publish", &request, send).await.unwrap();
}

/// Waits until a file has a number of lines.
async fn wait_for_lines(file: &Path, number: usize) {
    let deadline = Instant::now() + 2 * MAX_WAIT;
    loop {
        let lines = fs::read_to_string(file).unwrap_or_default().lines().count();
        if lines >= number {
            return;
        }
        assert!(Instant::now() < deadline, "{lines} lines, {number} expected");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the lines of a file of the example: offset and text.
fn without_epoch(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn the_credentials_example_reloads_its_token() {
    let files = SecuredFiles::new();
    files.certify("server", &["127.0.0.1"], None);
    files.certify("gateway", &["gateway.chat"], None);
    files.token("reader", "user:read");
    files.token("writer", "user:write");
    let path = |name| files.path(name).to_str().unwrap().to_owned();
    let (cert, key, ca, tokens) = (path("server.pem"), path("server.key"), path("ca.pem"), path("tokens"));
    let flags = ["--tls-cert", cert.as_str(), "--tls-key", &key, "--tls-client-ca", &ca, "--token-file", &tokens];
    let service = TestService::start("user", &flags).await;
    let use_token = |token: &str| {
        fs::write(files.path("next.token"), token).unwrap();
        fs::rename(files.path("next.token"), files.path("example.token")).unwrap();
    };
    use_token(&fs::read_to_string(files.path("reader.token")).unwrap());

    let mut example = RunningExample::start(
        "credentials",
        &[],
        &[
            ("TIDINGS_USER_ADDR", &format!("https://{}", service.address)),
            ("TIDINGS_CALLER_CA", &ca),
            ("TIDINGS_CALLER_CERT", &path("gateway.pem")),
            ("TIDINGS_CALLER_KEY", &path("gateway.key")),
            ("TIDINGS_CALLER_TOKEN_FILE", &path("example.token")),
        ],
    );
    assert_eq!(example.next_line().await, "accepted");
    use_token("unknown");
    example.wait_for_line("refused: UNAUTHENTICATED: unknown token").await;
    use_token(&fs::read_to_string(files.path("writer.token")).unwrap());
    example.wait_for_line("refused: PERMISSION_DENIED: ").await;
    use_token(&fs::read_to_string(files.path("reader.token")).unwrap());
    example.wait_for_line("accepted").await;
}
