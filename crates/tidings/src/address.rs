//! Where the services are.

use std::env;

use tidings_client::{Addresses, Malformed};

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
/// The variable that says where the lock service is.
pub(crate) const LOCK_VARIABLE: &str = "TIDINGS_LOCK_ADDR";
/// The variable that says where the broadcast service is.
pub(crate) const BROADCAST_VARIABLE: &str = "TIDINGS_BROADCAST_ADDR";
/// Where the user service is unless said otherwise.
pub(crate) const USER_ADDRESS: &str = "127.0.0.1:7401";
/// Where the history service is unless said otherwise.
pub(crate) const HISTORY_ADDRESS: &str = "127.0.0.1:7402";
/// Where the lock service is unless said otherwise.
pub(crate) const LOCK_ADDRESS: &str = "127.0.0.1:7403";
/// Where the broadcast service is unless said otherwise.
pub(crate) const BROADCAST_ADDRESS: &str = "127.0.0.1:7404";

/// The user service.
pub(crate) const USER: Service = Service { package: "tidings.user.", variable: USER_VARIABLE, address: USER_ADDRESS };

const SERVICES: [Service; 4] = [
    USER,
    Service { package: "tidings.history.", variable: HISTORY_VARIABLE, address: HISTORY_ADDRESS },
    Service { package: "tidings.lock.", variable: LOCK_VARIABLE, address: LOCK_ADDRESS },
    Service { package: "tidings.broadcast.", variable: BROADCAST_VARIABLE, address: BROADCAST_ADDRESS },
];

impl Service {
    /// The service that serves the contract of this full name, e.g. `tidings.user.v1.UserService`.
    pub(crate) fn of(contract: &str) -> Option<Self> {
        SERVICES.into_iter().find(|service| contract.starts_with(service.package))
    }

    /// What it is called, e.g. `user`.
    pub(crate) fn name(self) -> &'static str {
        self.package.split('.').nth(1).unwrap_or(self.package)
    }

    /// Where its instances are: what its environment variable says, else its default.
    ///
    /// # Errors
    /// The variable holds no address.
    pub(crate) fn addresses(self) -> Result<Addresses, Malformed> {
        env::var(self.variable).as_deref().unwrap_or(self.address).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_belongs_to_the_service_of_its_package() {
        let service = Service::of("tidings.history.v1.ConversationService").unwrap();

        assert_eq!(service.address, "127.0.0.1:7402");
        assert_eq!(Service::of("grpc.health.v1.Health"), None);
    }
}
