//! The URL of a database. It never shows its password.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

const EXPECTED: &str = "expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE";
/// Parameters that have a meaning; the driver would ignore all others without an error.
const PARAMETERS: &str = "sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, \
                          application_name, options, statement-cache-capacity";

/// A connection URL that never shows its password.
#[derive(Clone)]
pub struct PostgresUrl {
    options: PgConnectOptions,
    /// File with the CAs of the server's certificate, as the URL has it.
    ca: Option<String>,
}

impl PostgresUrl {
    /// Returns the connect options that the URL describes.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the TLS mode as it is written in a URL, e.g. `verify-full`.
    pub fn tls_mode(&self) -> &'static str {
        match self.options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => "disable",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        }
    }

    /// Returns true if the certificate of the server is verified.
    pub fn verifies_server(&self) -> bool {
        matches!(self.options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull)
    }

    /// Returns the file with the CAs of the server's certificate, if the URL names one.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Returns true if no network is between the service and Postgres.
    pub fn is_local(&self) -> bool {
        let host = self.options.get_host();
        self.options.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(EXPECTED.to_owned());
        }
        let ca = check_parameters(text)?;
        let mut options: PgConnectOptions = text.parse().map_err(|_| EXPECTED.to_owned())?;
        if let Some(address) = bracketed(options.get_host()) {
            options = options.host(&address.to_string());
        }
        // As libpq does: a CA would have no effect otherwise.
        if ca.is_some() && matches!(options.get_ssl_mode(), PgSslMode::Require) {
            options = options.ssl_mode(PgSslMode::VerifyCa);
        }
        Ok(Self { options, ca })
    }
}

/// Refuses parameters without a meaning, whose value may be a secret; returns the CA file.
fn check_parameters(text: &str) -> Result<Option<String>, String> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let mut ca = None;
    for (key, value) in
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match key {
            "sslmode" | "ssl-mode" if value.eq_ignore_ascii_case("allow") => {
                let modes =
                    "expected sslmode disable, prefer, require, verify-ca or verify-full; allow is not supported";
                return Err(modes.to_owned());
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => ca = Some(value.replace("%2F", "/").replace("%2f", "/")),
            "sslmode" | "ssl-mode" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key" => {}
            // A key may be percent-encoded, as in `options%5Bgeqo%5D`.
            key if key.starts_with("options") || PARAMETERS.split(", ").any(|known| known == key) => {}
            key => {
                return Err(format!("expected parameters out of {PARAMETERS}; '{key}' has no effect"));
            }
        }
    }
    Ok(ca)
}

/// Returns the address of an IPv6 literal, which a URL has in brackets.
fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let database = self.options.get_database().unwrap_or_default();
        match self.options.get_socket() {
            Some(socket) => write!(f, "postgres://{}:{port}/{database}", socket.display()),
            None if host.contains(':') => write!(f, "postgres://[{host}]:{port}/{database}"),
            None => write!(f, "postgres://{host}:{port}/{database}"),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_never_shows_its_password() {
        let url: PostgresUrl = "postgres://ada:secret@db:5433/tidings_user".parse().unwrap();

        assert_eq!(format!("{url} {url:?}"), "postgres://db:5433/tidings_user postgres://db:5433/tidings_user");
    }

    #[test]
    fn a_refused_url_is_not_repeated_in_the_error() {
        for url in ["mysql://secret", "postgres://ada:secret@db/x?sslmod=secret", "postgres://db:secret/x"] {
            let refusal = url.parse::<PostgresUrl>().unwrap_err();

            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn an_ipv6_address_has_brackets_in_the_url_only() {
        let url: PostgresUrl = "postgres://ada@[::1]:5433/chat".parse().unwrap();

        assert_eq!(url.options().get_host(), "::1");
        assert_eq!(url.to_string(), "postgres://[::1]:5433/chat");
        assert!(url.is_local());
    }

    /// The driver ignores such a parameter, and the connection is in plain text.
    #[test]
    fn a_misspelt_tls_parameter_is_refused() {
        let refusal = "postgres://db/chat?ssl_mode=verify-full".parse::<PostgresUrl>().unwrap_err();

        assert!(refusal.starts_with("expected parameters out of sslmode, "), "{refusal}");
        assert!(refusal.ends_with("; 'ssl_mode' has no effect"), "{refusal}");
        assert!("postgres://db/chat?sslmode=allow".parse::<PostgresUrl>().unwrap_err().contains("not supported"));
    }

    #[test]
    fn a_ca_is_used_for_verification_also_with_require() {
        let url: PostgresUrl = "postgres://db/chat?sslmode=require&sslrootcert=/etc/ca.pem".parse().unwrap();

        assert_eq!((url.tls_mode(), url.ca()), ("verify-ca", Some("/etc/ca.pem")));
        assert!(url.verifies_server() && !url.is_local());
        let plain: PostgresUrl = "postgres://db/chat".parse().unwrap();
        assert!(!plain.verifies_server());
    }
}
