//! Who may call: the settings, and the rule that nobody is let in from elsewhere by mistake.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Tokens;
use crate::live::{Cause, Unusable};
use crate::tls::{self, Tls};

/// How callers are known.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Certificates.
    #[command(flatten)]
    pub tls: tls::Args,

    /// List of tokens, each with a name, a hash and scopes, one a line, as `tidings token new` writes them; with it every
    /// call but those of health and reflection needs a token. Read again when it changes.
    #[arg(long, env = "TIDINGS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Listen on addresses other than loopback although neither TLS nor tokens are asked for.
    #[arg(long, env = "TIDINGS_INSECURE")]
    pub insecure: bool,

    /// How often files are looked at. No flag: a rotation has hours, and whoever takes a token away wants to see it gone.
    #[arg(skip = Args::default().look)]
    pub look: Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self { tls: tls::Args::default(), token_file: None, insecure: false, look: Duration::from_secs(1) }
    }
}

/// A setting that is wrong: `--tls-cert (TIDINGS_TLS_CERT): 'server.pem': No such file or directory (os error 2)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct Wrong {
    setting: Setting,
    problem: String,
}

/// A setting by its flag and its variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
}

/// Where the list of tokens is.
const TOKENS: Setting = Setting { flag: "--token-file", variable: "TIDINGS_TOKEN_FILE" };
/// What a service listens on.
const LISTEN: Setting = Setting { flag: "--listen", variable: "TIDINGS_LISTEN" };

impl Wrong {
    /// A setting, by its flag and its variable, and what is wrong with it: its value, and what was expected.
    pub fn new(flag: &'static str, variable: &'static str, problem: impl Into<String>) -> Self {
        Self { setting: Setting { flag, variable }, problem: problem.into() }
    }
}

impl Setting {
    /// It is not given, and should be.
    pub(crate) fn missing(self, expected: &str) -> Wrong {
        Wrong { setting: self, problem: format!("not given: expected {expected}") }
    }

    /// It names a file that can not be used.
    pub(crate) fn wrong(self, unusable: &Unusable) -> Wrong {
        let expected = match &unusable.cause {
            Cause::Unreadable(error) => format!("expected a file that can be read: {error}"),
            malformed @ Cause::Malformed(_) => malformed.to_string(),
        };
        Wrong { setting: self, problem: format!("'{}': {expected}", unusable.path.display()) }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.flag, self.variable)
    }
}

/// What guards a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) tls: Option<Tls>,
    pub(crate) tokens: Option<Tokens>,
}

impl Args {
    /// Says what is wrong with them for a service that is to listen on this address. Nothing is bound yet.
    ///
    /// # Errors
    /// A file that can not be used; an address that strangers reach although nobody is asked who they are.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), Wrong> {
        let security = self.open()?;
        let guarded = security.tls.is_some() || security.tokens.is_some() || self.insecure;
        if guarded || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let problem = format!(
            "'{listen}': expected an address like 127.0.0.1:{}, as nobody is asked who they are: give --tls-cert and \
             --tls-key, or --token-file, or say --insecure if something else keeps strangers away",
            listen.port()
        );
        Err(Wrong { setting: LISTEN, problem })
    }

    /// Reads all files.
    pub(crate) fn open(&self) -> Result<Security, Wrong> {
        let tokens = self.token_file.as_deref().map(Tokens::open).transpose();
        Ok(Security { tls: Tls::open(&self.tls)?, tokens: tokens.map_err(|unusable| TOKENS.wrong(&unusable))? })
    }
}

impl Security {
    /// Looks at the files so often, and takes over what they hold when that has changed, for as long as it is polled.
    pub(crate) async fn watch(self, look: Duration) {
        let certificates = async {
            if let Some(tls) = self.tls {
                tls.watch(look).await;
            }
        };
        let tokens = async {
            if let Some(tokens) = self.tokens {
                tokens.watch(look).await;
            }
        };
        tokio::join!(certificates, tokens);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    const HERE: &str = "127.0.0.1:7401";

    /// Two pairs and a list of tokens.
    fn files() -> TempDir {
        let dir = TempDir::new().unwrap();
        for name in ["one", "two"] {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(dir.path().join(format!("{name}.pem")), cert.pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), signing_key.serialize_pem()).unwrap();
        }
        fs::write(dir.path().join("tokens"), format!("gateway {} history:read\n", "0".repeat(64))).unwrap();
        dir
    }

    /// What is said of these settings, `$` standing for the directory of the files.
    fn complaint(dir: &TempDir, listen: &str, flags: &[&str]) -> Option<String> {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            security: Args,
        }
        let dir = dir.path().display().to_string();
        let flags = flags.iter().map(|flag| flag.replace('$', &dir));
        let parsed: Command = clap::Parser::try_parse_from(["test".to_owned()].into_iter().chain(flags)).unwrap();
        let complaint = parsed.security.validate(listen.parse().unwrap()).err();
        complaint.map(|wrong| wrong.to_string().replace(&dir, "$"))
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_with_flag_variable_value_and_expectation() {
        let dir = files();
        let pair = |cert, key| complaint(&dir, HERE, &["--tls-cert", cert, "--tls-key", key]).unwrap_or_default();

        assert_eq!(pair("$/one.pem", "$/one.key"), "");
        assert_eq!(
            pair("$/absent", "$/one.key"),
            "--tls-cert (TIDINGS_TLS_CERT): '$/absent': expected a file that can be read: No such file or directory \
             (os error 2)"
        );
        assert_eq!(
            pair("$/one.key", "$/one.key"),
            "--tls-cert (TIDINGS_TLS_CERT): '$/one.key': expected certificates in PEM, beginning with \
             -----BEGIN CERTIFICATE-----"
        );
        assert_eq!(
            pair("$/one.pem", "$/one.pem"),
            "--tls-key (TIDINGS_TLS_KEY): '$/one.pem': expected a private key in PEM, beginning with \
             -----BEGIN PRIVATE KEY-----"
        );
        assert_eq!(
            pair("$/one.pem", "$/two.key"),
            "--tls-key (TIDINGS_TLS_KEY): '$/two.key': expected the key of the certificate, got another"
        );
    }

    #[test]
    fn half_of_what_belongs_together_is_told_with_what_is_missing() {
        let dir = files();
        let told = |flags: &[&str]| complaint(&dir, HERE, flags).unwrap_or_default();
        let pair = ["--tls-cert", "$/one.pem", "--tls-key", "$/one.key"];

        assert_eq!(told(&pair[..2]), "--tls-key (TIDINGS_TLS_KEY): not given: expected a file, as --tls-cert is given");
        assert_eq!(
            told(&pair[2..]),
            "--tls-cert (TIDINGS_TLS_CERT): not given: expected a file, as --tls-key is given"
        );
        assert_eq!(
            told(&["--tls-client-ca", "$/one.pem"]),
            "--tls-cert (TIDINGS_TLS_CERT): not given: expected a file, as --tls-client-ca is given"
        );
        assert_eq!(
            told(&[&pair[..], &["--tls-client-san", "gateway.chat"]].concat()),
            "--tls-client-ca (TIDINGS_TLS_CLIENT_CA): not given: expected a file, as --tls-client-san is given"
        );
        assert_eq!(told(&[&pair[..], &["--tls-client-ca", "$/two.pem"]].concat()), "");
    }

    #[test]
    fn a_list_of_tokens_that_can_not_be_read_is_told_with_its_line() {
        let dir = files();
        fs::write(dir.path().join("broken"), "# all of them\n\ngateway 1234 history:read\n").unwrap();

        assert_eq!(complaint(&dir, HERE, &["--token-file", "$/tokens"]), None);
        assert_eq!(
            complaint(&dir, HERE, &["--token-file", "$/broken"]).unwrap(),
            "--token-file (TIDINGS_TOKEN_FILE): '$/broken': expected NAME SHA256 SCOPES, but in line 3: the second is not \
             64 hexadecimal digits"
        );
    }

    #[test]
    fn without_certificates_and_tokens_only_loopback_is_listened_on_unless_insecurity_is_said() {
        let dir = files();
        let told = |listen, flags: &[&str]| complaint(&dir, listen, flags);

        for loopback in [HERE, "127.1.2.3:1", "[::1]:7401", "[::ffff:127.0.0.1]:7401"] {
            assert_eq!(told(loopback, &[]), None, "{loopback}");
        }
        for elsewhere in ["0.0.0.0:7401", "10.1.2.3:7401", "[::]:7401"] {
            let complaint = told(elsewhere, &[]).unwrap();
            assert!(
                complaint.starts_with(&format!("--listen (TIDINGS_LISTEN): '{elsewhere}': expected")),
                "{complaint}"
            );
            assert_eq!(told(elsewhere, &["--insecure"]), None);
            assert_eq!(told(elsewhere, &["--token-file", "$/tokens"]), None);
            assert_eq!(told(elsewhere, &["--tls-cert", "$/one.pem", "--tls-key", "$/one.key"]), None);
        }
    }
}
