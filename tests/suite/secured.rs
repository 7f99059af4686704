//! An installation with mutual TLS, allowed client names, and tokens with scopes.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidings_devstack::{Devstack, Options};
use tokio::runtime::Runtime;

use crate::support::{TIDINGS, eventually, output_of, root, stderr};

const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];
const ADA: &str = r#"{"id": "ada"}"#;

/// The four services with TLS, client certificates and tokens, on their own Postgres and Redis.
struct SecuredInstallation {
    services: Vec<(&'static str, String, Child)>,
    files: SecuredFiles,
    runtime: Runtime,
    stack: Option<Devstack>,
}

/// Certificates signed by one CA, and token files.
pub(crate) struct SecuredFiles {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl SecuredFiles {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), ca };
        fs::write(files.path("ca.pem"), files.ca.pem()).unwrap();
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates `name.pem` and `name.key`, for host names, IP addresses or a URI.
    pub(crate) fn certify(&self, name: &str, hosts: &[&str], uri: Option<&str>) {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        fs::write(self.path(&format!("{name}.pem")), params.signed_by(&key, &self.ca).unwrap().pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Creates `name.token` with these scopes and adds it to the list `tokens`.
    pub(crate) fn token(&self, name: &str, scopes: &str) {
        let created = Command::new(TIDINGS)
            .args(["token", "new", "--name", name, "--scope", scopes, "--out"])
            .arg(self.path(&format!("{name}.token")))
            .arg("--append")
            .arg(self.path("tokens"))
            .status();
        assert!(created.unwrap().success());
    }
}

impl SecuredInstallation {
    fn start() -> Self {
        let files = SecuredFiles::new();
        files.certify("server", &["localhost", "127.0.0.1"], None);
        files.certify("gateway", &[], Some("spiffe://chat/gateway"));
        files.certify("history", &["history.chat"], None);
        files.certify("stranger", &["stranger.chat"], None);
        files.token("gateway", "*:read,*:write");
        files.token("reader", "user:read");
        files.token("history", "broadcast:write,broadcast:relay");

        let runtime = Runtime::new().unwrap();
        let stack = runtime.block_on(async {
            let stack = Devstack::start(Options::temporary()).await.unwrap();
            for service in SERVICES {
                stack.postgres().create_database(&format!("tidings_{service}")).await.unwrap();
            }
            stack
        });
        let mut secured = Self { services: Vec::new(), files, runtime, stack: None };
        let addresses: Vec<_> = free_addresses();
        for (name, address) in SERVICES.into_iter().zip(&addresses) {
            let child = secured.serve(name, address, &addresses[3], &stack);
            secured.services.push((name, address.clone(), child));
        }
        secured.stack = Some(stack);
        for (name, address, _) in &secured.services {
            eventually(&format!("{name} listens"), || TcpStream::connect(address).ok());
        }
        secured
    }

    fn serve(&self, name: &str, address: &str, broadcast: &str, stack: &Devstack) -> Child {
        let file = |name| self.files.path(name);
        let mut command = Command::new(TIDINGS);
        command
            .args(["serve", name, "--tls-client-san", "spiffe://chat/gateway,history.chat", "--listen", address])
            .env("TIDINGS_TLS_CERT", file("server.pem"))
            .env("TIDINGS_TLS_KEY", file("server.key"))
            .env("TIDINGS_TLS_CLIENT_CA", file("ca.pem"))
            .env("TIDINGS_TOKEN_FILE", file("tokens"))
            .env("TIDINGS_MIGRATE", "true")
            .env("TIDINGS_POSTGRES_URL", stack.postgres().url(&format!("tidings_{name}")))
            .env("TIDINGS_REDIS_URL", stack.redis().url())
            .env("TIDINGS_LOCK_FRESH_START", "true");
        if name == "history" {
            command
                .env("TIDINGS_BROADCAST_ADDR", format!("https://{broadcast}"))
                .env("TIDINGS_BROADCAST_CA", file("ca.pem"))
                .env("TIDINGS_BROADCAST_CERT", file("history.pem"))
                .env("TIDINGS_BROADCAST_KEY", file("history.key"))
                .env("TIDINGS_BROADCAST_TOKEN_FILE", file("history.token"));
        }
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    /// Returns a command that calls with this certificate and token, if any.
    fn command(&self, certificate: Option<&str>, token: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(TIDINGS);
        command.args(arguments).current_dir(root()).env("TIDINGS_CALLER_CA", self.files.path("ca.pem"));
        for (name, address, _) in &self.services {
            command.env(format!("TIDINGS_{}_ADDR", name.to_uppercase()), format!("https://{address}"));
        }
        if let Some(name) = certificate {
            command.env("TIDINGS_CALLER_CERT", self.files.path(&format!("{name}.pem")));
            command.env("TIDINGS_CALLER_KEY", self.files.path(&format!("{name}.key")));
        }
        if let Some(name) = token {
            command.env("TIDINGS_CALLER_TOKEN_FILE", self.files.path(&format!("{name}.token")));
        }
        command
    }

    /// Calls a method, which must fail with exit code 3; returns the error output.
    fn refusal(&self, certificate: Option<&str>, token: Option<&str>, method: &str, request: &str) -> String {
        let output = output_of(&mut self.command(certificate, token, &["call", method, request]));
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        stderr(&output)
    }
}

impl Drop for SecuredInstallation {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.services {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let _ = child.wait();
        }
        if let Some(stack) = self.stack.take() {
            self.runtime.block_on(stack.stop());
        }
    }
}

/// Returns a free address for each service. All ports stay bound until the last is chosen, so that
/// they differ.
fn free_addresses() -> Vec<String> {
    let listeners: Vec<_> = SERVICES.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// Replay and bench work with a certificate and a token; callers without either are refused.
#[test]
fn only_authenticated_callers_with_the_scope_are_served() {
    let secured = SecuredInstallation::start();

    // Uses calls, locks, subscriptions, and the relay from history to broadcast.
    let replayed = output_of(&mut secured.command(Some("gateway"), Some("gateway"), &["replay", "demo", "--quiet"]));
    assert!(replayed.status.success(), "{}", stderr(&replayed));

    let quick = ["bench", "empty", "get-user", "subscribe", "--time", "500ms", "--warm-up", "0s", "--quiet"];
    let benched = output_of(&mut secured.command(Some("gateway"), Some("gateway"), &quick));
    assert!(benched.status.success(), "{}", stderr(&benched));

    for certificate in [Some("stranger"), None] {
        let refusal = secured.refusal(certificate, Some("gateway"), "GetUser", ADA);
        let expected = ["AccessDenied", "CertificateRequired", "does the service accept your certificate?"];
        assert!(expected.iter().any(|part| refusal.contains(part)), "{refusal}");
    }
    let create = r#"{"user": {"id": "ada"}}"#;
    for (token, method, request, expected) in [
        (None, "GetUser", ADA, "UNAUTHENTICATED UNAUTHENTICATED"),
        (Some("reader"), "CreateUser", create, "PERMISSION_DENIED PERMISSION_DENIED"),
        (Some("reader"), "CreateUser", create, "scope = user:write"),
        (Some("gateway"), "Publish", r#"{"channel": "conversation/ops"}"#, "scope = broadcast:relay"),
    ] {
        let refusal = secured.refusal(Some("gateway"), token, method, request);
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
    let absent = secured.refusal(Some("gateway"), Some("reader"), "GetUser", ADA);
    assert!(absent.contains("NOT_FOUND USER_NOT_FOUND"), "{absent}");
}

#[test]
fn a_service_without_authentication_listens_only_locally() {
    let output = output_of(
        Command::new(TIDINGS)
            .args(["serve", "user", "--listen", "0.0.0.0:0"])
            .env("TIDINGS_POSTGRES_URL", "postgres://127.0.0.1:1/nothing")
            .env("TIDINGS_REDIS_URL", "redis://127.0.0.1:1"),
    );

    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let message = stderr(&output);
    for part in ["--listen (TIDINGS_LISTEN): '0.0.0.0:0': expected", "--tls-cert", "--token-file", "--insecure"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}
