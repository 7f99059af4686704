//! Credentials of Redis: read again for each connection, so that a rotated password or CA needs no
//! restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionInfo, ProtocolVersion, RedisError, TlsCertificates};
use tokio::fs;

use crate::args::{Args, RedisUrl};

/// Idle time after which the kernel sends keepalive probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Time for which sent bytes may stay unacknowledged before the kernel closes the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The URL of Redis, and the files of its secrets.
#[derive(Debug)]
pub(crate) struct RedisCredentials {
    file: Option<PathBuf>,
    ca: Option<PathBuf>,
    current: Mutex<CurrentCredentials>,
}

#[derive(Debug)]
struct CurrentCredentials {
    url: RedisUrl,
    ca: Option<Vec<u8>>,
    /// Grows with each change.
    number: u64,
}

impl RedisCredentials {
    /// Starts with the URL and the CA of the settings.
    ///
    /// # Errors
    /// The driver's, if it does not accept the URL; or the CA file cannot be read, or has no
    /// certificate.
    pub(crate) fn new(args: &Args) -> Result<Self, RedisError> {
        let (url, ca) = (args.redis_url.clone(), args.redis_ca.clone());
        let info = complete(url.info());
        if let Some(path) = &ca {
            with_ca(info, path, std::fs::read(path).map_err(|error| unreadable(path, &error))?)?;
        } else {
            Client::open(info)?;
        }
        let current = CurrentCredentials { url, ca: None, number: 0 };
        Ok(Self { file: args.redis_url_file.clone(), ca, current: Mutex::new(current) })
    }

    /// Returns the settings of a connection, and a number that grows when they change. If the file
    /// of the URL cannot be used, the last URL is used and the reason is logged.
    ///
    /// # Errors
    /// The driver's; or the CA file cannot be read, or has no certificate.
    pub(crate) async fn current(&self) -> Result<(u64, ConnectionInfo), RedisError> {
        if let Some(file) = &self.file {
            match read(file).await {
                Ok(url) => self.current.lock().replace(url),
                Err(problem) => tracing::warn!(file = %file.display(), problem, "cannot read redis credentials again"),
            }
        }
        let Some(path) = &self.ca else {
            let current = self.current.lock();
            return Ok((current.number, complete(current.url.info())));
        };
        let pem = fs::read(path).await.map_err(|error| unreadable(path, &error))?;
        let (number, info) = {
            let mut current = self.current.lock();
            current.replace_ca(&pem);
            (current.number, complete(current.url.info()))
        };
        Ok((number, with_ca(info, path, pem)?))
    }

    /// Returns the user of the connections.
    pub(crate) fn user(&self) -> String {
        self.current.lock().url.info().redis_settings().username().unwrap_or("default").to_owned()
    }
}

impl CurrentCredentials {
    /// Takes over user and password. Another server or database would have other data.
    fn replace(&mut self, url: RedisUrl) {
        let place = |url: &RedisUrl| (url.to_string(), url.info().redis_settings().db());
        if place(&url) != place(&self.url) {
            tracing::warn!(current = %self.url, found = %url, "the URL of redis changed: restart to use it");
            return;
        }
        let secrets = |url: &RedisUrl| {
            let settings = url.info().redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
        };
        if secrets(&url) != secrets(&self.url) {
            (self.url, self.number) = (url, self.number + 1);
        }
    }

    fn replace_ca(&mut self, pem: &[u8]) {
        if self.ca.as_deref() != Some(pem) {
            (self.ca, self.number) = (Some(pem.to_vec()), self.number + 1);
        }
    }
}

/// Returns the connection settings of every connection.
fn complete(info: &ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
        .set_user_timeout(USER_TIMEOUT);
    info.clone().set_redis_settings(settings).set_tcp_settings(tcp)
}

/// Adds the certificates of a CA file.
fn with_ca(info: ConnectionInfo, path: &Path, pem: Vec<u8>) -> Result<ConnectionInfo, RedisError> {
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    let client = Client::build_with_tls(info, certificates).map_err(|error| unreadable(path, &error))?;
    Ok(client.get_connection_info().clone())
}

/// Reads a URL as the command line does: without white space around it, and without a BOM.
async fn read(file: &Path) -> Result<RedisUrl, String> {
    let text = fs::read_to_string(file).await.map_err(|error| error.to_string())?;
    Ok(text.trim_start_matches('\u{feff}').trim().parse::<RedisUrl>()?)
}

fn unreadable(ca: &Path, error: &dyn fmt::Display) -> RedisError {
    io::Error::other(format!("--redis-ca {}: {error}", ca.display())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It has other data.
    #[test]
    fn another_server_or_database_in_the_file_is_not_used() {
        let args = Args::new("redis://ada:one@cache/1".parse().unwrap());
        let credentials = RedisCredentials::new(&args).unwrap();
        let replace = |url: &str| {
            let mut current = credentials.current.lock();
            current.replace(url.parse().unwrap());
            current.number
        };

        assert_eq!(replace("redis://ada:one@cache/1"), 0);
        assert_eq!(replace("redis://bob:two@cache/1"), 1);
        assert_eq!(replace("redis://eve:three@cache/2"), 1);
        assert_eq!(replace("redis://eve:three@other/1"), 1);
        assert_eq!(credentials.user(), "bob");
    }
}
