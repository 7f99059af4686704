//! Where the services are.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made: a service on the way up answers later calls.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection in use is asked for a sign of life this often, ...
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// ... and given up after this long without one: a service that hangs is noticed although its socket stays open.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// One of the services, by the package of its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    package: &'static str,
    variable: &'static str,
    address: &'static str,
}

/// The variable that says where the user service is.
pub(crate) const USER_VARIABLE: &str = "TIDINGS_USER_ADDR";
/// The variable that says where the history service is.
pub(crate) const HISTORY_VARIABLE: &str = "TIDINGS_HISTORY_ADDR";
/// Where the user service is unless said otherwise.
pub(crate) const USER_ADDRESS: &str = "127.0.0.1:7401";
/// Where the history service is unless said otherwise.
pub(crate) const HISTORY_ADDRESS: &str = "127.0.0.1:7402";

const SERVICES: [Service; 4] = [
    Service { package: "tidings.user.", variable: USER_VARIABLE, address: USER_ADDRESS },
    Service { package: "tidings.history.", variable: HISTORY_VARIABLE, address: HISTORY_ADDRESS },
    Service { package: "tidings.lock.", variable: "TIDINGS_LOCK_ADDR", address: "127.0.0.1:7403" },
    Service { package: "tidings.broadcast.", variable: "TIDINGS_BROADCAST_ADDR", address: "127.0.0.1:7404" },
];

impl Service {
    /// The service that serves the contract of this full name, e.g. `tidings.user.v1.UserService`.
    pub(crate) fn of(contract: &str) -> Option<Self> {
        SERVICES.into_iter().find(|service| contract.starts_with(service.package))
    }

    /// Where it is: what its environment variable says, else its default.
    ///
    /// # Errors
    /// The variable holds no address.
    pub(crate) fn address(self) -> Result<Address, Malformed> {
        env::var(self.variable).as_deref().unwrap_or(self.address).parse()
    }
}

/// The address of a service: `HOST:PORT`, also written `http://HOST:PORT`.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    uri: Uri,
}

/// What was given is no address.
#[derive(Debug, thiserror::Error)]
#[error("'{0}': expected HOST:PORT or http://HOST:PORT, e.g. 127.0.0.1:7401")]
pub(crate) struct Malformed(String);

impl FromStr for Address {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed(text.to_owned());
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let uri: Uri = format!("http://{authority}").parse().map_err(|_| malformed())?;
        let complete = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some() && uri.path() == "/";
        if complete { Ok(Self { uri }) } else { Err(malformed()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.authority().map_or_else(Default::default, Authority::as_str))
    }
}

impl Address {
    /// A channel that connects with its first call, and again whenever the connection was lost.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_lazy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:7401", "http://127.0.0.1:7401", "http://127.0.0.1:7401/"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), "127.0.0.1:7401");
        }
        assert!("[::1]:7401".parse::<Address>().is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "localhost", ":7401", "https://localhost:1", "localhost:99999", "localhost:1/x", "a b:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_contract_belongs_to_the_service_of_its_package() {
        let service = Service::of("tidings.history.v1.ConversationService").unwrap();

        assert_eq!(service.address, "127.0.0.1:7402");
        assert_eq!(Service::of("grpc.health.v1.Health"), None);
    }
}
