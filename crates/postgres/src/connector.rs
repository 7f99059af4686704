//! The way to one connection: credentials, addresses, TLS, log-in, session settings.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use crate::addresses::{first_reachable, resolve};
use crate::args::Args;
use crate::cause::Cause;
use crate::credentials::PostgresCredentials;
use crate::fault::OpenFailure;
use crate::incarnation::IncarnationWatch;
use crate::session::SessionSettings;

/// Opens connections of one kind to one database.
#[derive(Debug)]
pub(crate) struct Connector {
    credentials: PostgresCredentials,
    application: String,
    session: SessionSettings,
    /// Longest time of an attempt, log-in included.
    limit: Duration,
    incarnation: IncarnationWatch,
}

impl Connector {
    pub(crate) fn new(args: &Args, application: &str, session: SessionSettings) -> Self {
        Self {
            credentials: PostgresCredentials::new(args.postgres_url.clone(), args.postgres_url_file.clone()),
            application: application.to_owned(),
            session,
            limit: *args.postgres_connect_timeout,
            incarnation: IncarnationWatch::new(),
        }
    }

    /// Returns the address for messages, without password.
    pub(crate) fn address(&self) -> String {
        self.credentials.address()
    }

    pub(crate) fn session(&self) -> &SessionSettings {
        &self.session
    }

    /// Returns the incarnation of the database.
    pub(crate) fn incarnation(&self) -> &IncarnationWatch {
        &self.incarnation
    }

    /// Logs the protection of connections, once at start.
    pub(crate) fn log_security(&self, is_encrypted: bool) {
        let url = self.credentials.url();
        let (tls, ca) = (url.tls_mode(), url.ca().unwrap_or_default());
        let verified = url.verifies_server();
        tracing::info!(address = %url, sslmode = tls, is_encrypted, verified, ca, "connected to postgres");
        if !url.is_local() && !is_encrypted {
            tracing::warn!("plain text to postgres: set ?sslmode=verify-full in its URL");
        } else if !url.is_local() && !verified {
            tracing::warn!("the certificate of postgres is not verified: set ?sslmode=verify-full in its URL");
        }
    }

    /// Returns the longest time of an attempt.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Opens a connection, and reads the incarnation of the database on it.
    ///
    /// # Errors
    /// [`OpenFailure`], with the address and the words of the server or the network.
    pub(crate) async fn connect(&self) -> Result<PgConnection, OpenFailure> {
        let mut connection = self.log_in().await?;
        self.read_incarnation(&mut connection).await?;
        Ok(connection)
    }

    /// Reads the incarnation of the database on a new connection.
    ///
    /// # Errors
    /// Like [`Connector::connect`].
    pub(crate) async fn read_incarnation(&self, connection: &mut PgConnection) -> Result<(), OpenFailure> {
        match timeout(self.limit, self.incarnation.read(connection)).await {
            Ok(read) => read.map_err(|error| OpenFailure::of(&error, &self.address())),
            Err(_) => Err(OpenFailure::Away(Cause::timeout("no response to the first query").at(&self.address()))),
        }
    }

    /// Opens a connection of a server that may be unsuitable: no query is sent, except for the
    /// settings of a session.
    ///
    /// # Errors
    /// Like [`Connector::connect`].
    pub(crate) async fn log_in(&self) -> Result<PgConnection, OpenFailure> {
        let step = Mutex::new("reading the credentials".to_owned());
        if let Ok(attempted) = timeout(self.limit, self.attempt(&step)).await {
            return attempted;
        }
        let limit = humantime::Duration::from(self.limit);
        let text = format!("{}: no response within {limit}", step.into_inner());
        Err(OpenFailure::Away(Cause::timeout(text)))
    }

    /// Checks that the CA file can be read: the driver's error has no name of a file.
    async fn check_ca(&self) -> Result<(), OpenFailure> {
        let url = self.credentials.url();
        let Some(file) = url.ca() else { return Ok(()) };
        let read = tokio::fs::read(file).await;
        read.map(drop).map_err(|error| OpenFailure::Refused(Cause::new(format!("sslrootcert '{file}': {error}"))))
    }

    /// Connects, and keeps the current step in `step`, which the message of a timeout names.
    async fn attempt(&self, step: &Mutex<String>) -> Result<PgConnection, OpenFailure> {
        let options = self.credentials.current().await.application_name(&self.application);
        self.check_ca().await?;
        let options = self.session.start_with(options);
        let (options, address) = match target(&options) {
            Target::Socket(path) => (options, path),
            Target::Address(address) => (options, address.to_string()),
            Target::Name(host, port) => {
                *step.lock() = format!("looking up host name '{host}'");
                let found = resolve(&host, port).await.map_err(|text| OpenFailure::Away(Cause::new(text)))?;
                *step.lock() = format!("connecting to {host} ({})", join(&found));
                choose(options, &host, &found).await?
            }
        };
        *step.lock() = format!("connecting to {address}");
        let refused = |error| OpenFailure::of(&error, &address);
        let mut connection = options.connect().await.map_err(refused)?;
        self.session.apply(&mut connection).await.map_err(refused)?;
        Ok(connection)
    }
}

/// A place to connect to.
enum Target {
    /// A Unix socket in this directory.
    Socket(String),
    Address(SocketAddr),
    Name(String, u16),
}

fn target(options: &PgConnectOptions) -> Target {
    let (host, port) = (options.get_host(), options.get_port());
    if let Some(path) = options.get_socket() {
        return Target::Socket(path.display().to_string());
    }
    match host.parse::<IpAddr>() {
        _ if host.starts_with('/') => Target::Socket(host.to_owned()),
        Ok(address) => Target::Address(SocketAddr::new(address, port)),
        Err(_) => Target::Name(host.to_owned(), port),
    }
}

/// Chooses an address of a name, if it has several. Returns options for it, and its description.
///
/// The driver tries the addresses of a name one after another without a limit. Connecting by name
/// is preferred nevertheless: a proxy may choose its server by the name in the TLS handshake, and
/// `verify-full` compares that name.
async fn choose(
    options: PgConnectOptions,
    host: &str,
    found: &[SocketAddr],
) -> Result<(PgConnectOptions, String), OpenFailure> {
    if let [only] = found {
        let address = only.to_string();
        return Ok((options, format!("{host} ({address})")));
    }
    let reached = first_reachable(found).await.map_err(|text| OpenFailure::Away(Cause::new(text).at(host)))?;
    let needs_name = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if needs_name || found.first() == Some(&reached) {
        return Ok((options, format!("{host} ({})", join(found))));
    }
    Ok((options.host(&reached.ip().to_string()), format!("{host} ({reached})")))
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
