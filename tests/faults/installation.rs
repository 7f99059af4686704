//! The installation of a drill: two instances of each service on a Postgres and a Redis of its own.

use tidings_devstack::{Devstack, Options};
use tokio::join;

use crate::service::TestService;

/// Flags of an installation with an orchestrator: an instance is not ready before it stops.
const DRAIN: [&str; 4] = ["--lame-duck", "200ms", "--drain", "5s"];

/// A running installation; [`DrillInstallation::stop`] ends its servers.
pub(crate) struct DrillInstallation {
    pub(crate) stack: &'static Devstack,
    pub(crate) user: Vec<TestService>,
    pub(crate) history: Vec<TestService>,
    pub(crate) lock: Vec<TestService>,
    pub(crate) broadcast: Vec<TestService>,
}

impl DrillInstallation {
    pub(crate) async fn start() -> Self {
        // A service requires a stack of static lifetime. `stop` ends the services before the stack.
        let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
        let broadcast = start_two(stack, "broadcast", &[]).await;
        let addresses: Vec<_> = broadcast.iter().map(|instance| instance.address.to_string()).collect();
        let relay_flags = ["--broadcast-addr".to_owned(), addresses.join(",")];
        let relay_flags = relay_flags.each_ref().map(String::as_str);
        // The longest lease determines the quarantine; here all leases have the minimum of 1 s.
        let lock_flags = ["--lock-default-ttl", "1s", "--lock-fresh-start"];
        let (user, history, lock) = join!(
            start_two(stack, "user", &[]),
            start_two(stack, "history", &relay_flags),
            start_two(stack, "lock", &lock_flags)
        );
        Self { stack, user, history, lock, broadcast }
    }

    /// Returns the instances of all services.
    pub(crate) fn instances(&mut self) -> impl Iterator<Item = &mut TestService> {
        [&mut self.user, &mut self.history, &mut self.lock, &mut self.broadcast].into_iter().flatten()
    }

    /// Stops all services and servers.
    ///
    /// # Panics
    /// If a service has exited by itself or has panicked.
    pub(crate) async fn stop(mut self) {
        for service in self.instances() {
            service.assert_running();
        }
        let stack = self.stack;
        drop(self);
        join!(stack.postgres().stop(), stack.redis().stop());
    }
}

async fn start_two(stack: &'static Devstack, name: &'static str, flags: &[&str]) -> Vec<TestService> {
    let first = TestService::start_on(stack, name, &[&DRAIN, flags].concat(), &[]).await;
    let second = first.start_another().await;
    vec![first, second]
}
