//! Addresses of the services: environment variables and defaults.

use std::env;

use tidings_client::{Addresses, InvalidAddress};

/// A service, identified by the package of its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownService {
    package: &'static str,
    variable: &'static str,
    default: &'static str,
}

/// Environment variable with the address of the user service.
pub(crate) const USER_VARIABLE: &str = "TIDINGS_USER_ADDR";
/// Environment variable with the address of the history service.
pub(crate) const HISTORY_VARIABLE: &str = "TIDINGS_HISTORY_ADDR";
/// Environment variable with the address of the lock service.
pub(crate) const LOCK_VARIABLE: &str = "TIDINGS_LOCK_ADDR";
/// Environment variable with the address of the broadcast service.
pub(crate) const BROADCAST_VARIABLE: &str = "TIDINGS_BROADCAST_ADDR";
/// Default address of the user service.
pub(crate) const USER_ADDRESS: &str = "127.0.0.1:7401";
/// Default address of the history service.
pub(crate) const HISTORY_ADDRESS: &str = "127.0.0.1:7402";
/// Default address of the lock service.
pub(crate) const LOCK_ADDRESS: &str = "127.0.0.1:7403";
/// Default address of the broadcast service.
pub(crate) const BROADCAST_ADDRESS: &str = "127.0.0.1:7404";

/// The user service.
pub(crate) const USER: KnownService =
    KnownService { package: "tidings.user.", variable: USER_VARIABLE, default: USER_ADDRESS };

const SERVICES: [KnownService; 4] = [
    USER,
    KnownService { package: "tidings.history.", variable: HISTORY_VARIABLE, default: HISTORY_ADDRESS },
    KnownService { package: "tidings.lock.", variable: LOCK_VARIABLE, default: LOCK_ADDRESS },
    KnownService { package: "tidings.broadcast.", variable: BROADCAST_VARIABLE, default: BROADCAST_ADDRESS },
];

impl KnownService {
    /// Finds the service of a contract by its full name, e.g. `tidings.user.v1.UserService`.
    pub(crate) fn of(contract: &str) -> Option<Self> {
        SERVICES.into_iter().find(|service| contract.starts_with(service.package))
    }

    /// Finds the service of this short name, e.g. `user`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        SERVICES.into_iter().find(|service| service.package.split('.').nth(1) == Some(name))
    }

    /// Returns the addresses of its instances from its environment variable, else its default.
    ///
    /// # Errors
    /// The variable holds a malformed address. An empty variable is unset.
    pub(crate) fn addresses(self) -> Result<Addresses, InvalidAddress> {
        let variable = env::var(self.variable).ok().filter(|addresses| !addresses.is_empty());
        variable.as_deref().unwrap_or(self.default).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_belongs_to_the_service_of_its_package() {
        let service = KnownService::of("tidings.history.v1.ConversationService").unwrap();

        assert_eq!(service.default, "127.0.0.1:7402");
        assert_eq!(KnownService::named("history"), Some(service));
        assert_eq!(KnownService::of("grpc.health.v1.Health"), None);
    }

    #[test]
    fn every_scenario_measures_a_known_service() {
        for scenario in tidings_load::SCENARIOS {
            let known = KnownService::named(scenario.service()).is_some();
            assert!(known || scenario.methods.is_empty(), "{}", scenario.name);
        }
    }
}
