//! Security settings: TLS, tokens, and the rule that an unprotected server listens on loopback
//! only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Tokens;
use crate::setting::{InvalidSetting, SettingName};
use crate::tls::{self, Tls};

/// Settings of TLS and authentication.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Settings of TLS and client certificates.
    #[command(flatten)]
    pub tls: tls::Args,

    /// Token list: a name, a SHA-256 and scopes per line, as `tidings token new` writes them; with
    /// it every call except health and reflection needs a token. Reloaded when it changes.
    #[arg(long, env = "TIDINGS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Allow addresses other than loopback although neither TLS nor tokens are configured.
    #[arg(long, env = "TIDINGS_INSECURE")]
    pub insecure: bool,

    /// Interval at which files are checked for changes. It has no flag: a rotation takes hours, and
    /// an operator who revokes a token expects an effect at once.
    #[arg(skip = Args::default().file_poll_interval)]
    pub file_poll_interval: Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            tls: tls::Args::default(),
            token_file: None,
            insecure: false,
            file_poll_interval: Duration::from_secs(1),
        }
    }
}

/// The path of the token list.
const TOKENS: SettingName = SettingName { flag: "--token-file", variable: "TIDINGS_TOKEN_FILE" };
/// The address that a service listens on.
const LISTEN: SettingName = SettingName { flag: "--listen", variable: "TIDINGS_LISTEN" };

/// The TLS and token configuration of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) tls: Option<Tls>,
    pub(crate) tokens: Option<Tokens>,
}

impl Args {
    /// Validates the settings for a service that is to listen on this address. Binds nothing.
    ///
    /// # Errors
    /// A file that cannot be used, or an address other than loopback without TLS, tokens or
    /// `--insecure`.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), InvalidSetting> {
        let security = self.open()?;
        let is_protected = security.tls.is_some() || security.tokens.is_some() || self.insecure;
        if is_protected || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let problem = format!(
            "'{listen}': expected a loopback address like 127.0.0.1:{}, as callers are not authenticated: set \
             --tls-cert and --tls-key, or --token-file, or --insecure if the network is trusted",
            listen.port()
        );
        Err(LISTEN.invalid(problem))
    }

    /// Reads all files.
    pub(crate) fn open(&self) -> Result<Security, InvalidSetting> {
        let tokens = self.token_file.as_deref().map(Tokens::open).transpose();
        Ok(Security { tls: Tls::open(&self.tls)?, tokens: tokens.map_err(|unusable| TOKENS.unusable(&unusable))? })
    }
}

impl Security {
    /// Polls the files at this interval and reloads them when they have changed; runs until
    /// dropped.
    pub(crate) async fn watch(self, file_poll_interval: Duration) {
        let certificates = async {
            if let Some(tls) = self.tls {
                tls.watch(file_poll_interval).await;
            }
        };
        let tokens = async {
            if let Some(tokens) = self.tokens {
                tokens.watch(file_poll_interval).await;
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

    /// Creates two pairs of certificate and key, and a token list.
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

    /// Returns the validation error of these settings. `$` in flags and in the error is the
    /// directory of the files.
    fn validation_error(dir: &TempDir, listen: &str, flags: &[&str]) -> Option<String> {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            security: Args,
        }
        let dir = dir.path().display().to_string();
        let flags = flags.iter().map(|flag| flag.replace('$', &dir));
        let parsed: Command = clap::Parser::try_parse_from(["test".to_owned()].into_iter().chain(flags)).unwrap();
        let error = parsed.security.validate(listen.parse().unwrap()).err();
        error.map(|invalid| invalid.to_string().replace(&dir, "$"))
    }

    /// The error shows flag, variable, value and the expected content.
    #[test]
    fn an_unusable_certificate_is_an_invalid_setting() {
        let dir = files();
        let pair =
            |cert, key| validation_error(&dir, HERE, &["--tls-cert", cert, "--tls-key", key]).unwrap_or_default();

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
    fn an_incomplete_pair_of_settings_names_the_missing_one() {
        let dir = files();
        let error_with = |flags: &[&str]| validation_error(&dir, HERE, flags).unwrap_or_default();
        let pair = ["--tls-cert", "$/one.pem", "--tls-key", "$/one.key"];

        assert_eq!(
            error_with(&pair[..2]),
            "--tls-key (TIDINGS_TLS_KEY): not given: expected a file, as --tls-cert is given"
        );
        assert_eq!(
            error_with(&pair[2..]),
            "--tls-cert (TIDINGS_TLS_CERT): not given: expected a file, as --tls-key is given"
        );
        assert_eq!(
            error_with(&["--tls-client-ca", "$/one.pem"]),
            "--tls-cert (TIDINGS_TLS_CERT): not given: expected a file, as --tls-client-ca is given"
        );
        assert_eq!(
            error_with(&[&pair[..], &["--tls-client-san", "gateway.chat"]].concat()),
            "--tls-client-ca (TIDINGS_TLS_CLIENT_CA): not given: expected a file, as --tls-client-san is given"
        );
        assert_eq!(error_with(&[&pair[..], &["--tls-client-ca", "$/two.pem"]].concat()), "");
    }

    #[test]
    fn a_malformed_token_list_is_reported_with_its_line() {
        let dir = files();
        fs::write(dir.path().join("broken"), "# all of them\n\ngateway 1234 history:read\n").unwrap();

        assert_eq!(validation_error(&dir, HERE, &["--token-file", "$/tokens"]), None);
        assert_eq!(
            validation_error(&dir, HERE, &["--token-file", "$/broken"]).unwrap(),
            "--token-file (TIDINGS_TOKEN_FILE): '$/broken': expected NAME SHA256 SCOPES, but in line 3: SHA256 is not \
             64 hexadecimal digits"
        );
    }

    /// TLS, tokens or `--insecure` lift the restriction.
    #[test]
    fn an_unprotected_server_listens_on_loopback_only() {
        let dir = files();
        let error_with = |listen, flags: &[&str]| validation_error(&dir, listen, flags);

        for loopback in [HERE, "127.1.2.3:1", "[::1]:7401", "[::ffff:127.0.0.1]:7401"] {
            assert_eq!(error_with(loopback, &[]), None, "{loopback}");
        }
        for elsewhere in ["0.0.0.0:7401", "10.1.2.3:7401", "[::]:7401"] {
            let error = error_with(elsewhere, &[]).unwrap();
            assert!(error.starts_with(&format!("--listen (TIDINGS_LISTEN): '{elsewhere}': expected")), "{error}");
            assert_eq!(error_with(elsewhere, &["--insecure"]), None);
            assert_eq!(error_with(elsewhere, &["--token-file", "$/tokens"]), None);
            assert_eq!(error_with(elsewhere, &["--tls-cert", "$/one.pem", "--tls-key", "$/one.key"]), None);
        }
    }
}
