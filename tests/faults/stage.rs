//! What a drill happens to: two instances of each service, on a Postgres and a Redis of their own.

use tidings_devstack::{Devstack, Options};
use tokio::join;

use crate::service::Service;

/// As an orchestrator has it: an instance says that it is about to go before it goes.
const GOING: [&str; 4] = ["--lame-duck", "200ms", "--drain", "5s"];

/// An installation. Its servers are stopped by [`Stage::close`].
pub(crate) struct Stage {
    pub(crate) stack: &'static Devstack,
    pub(crate) user: Vec<Service>,
    pub(crate) history: Vec<Service>,
    pub(crate) lock: Vec<Service>,
    pub(crate) broadcast: Vec<Service>,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        // Services are told of a stack that outlives them; this one ends earlier, but they do so first.
        let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
        let broadcast = two(stack, "broadcast", &[]).await;
        let peers: Vec<_> = broadcast.iter().map(|instance| instance.address.to_string()).collect();
        let relays = ["--broadcast-addr".to_owned(), peers.join(",")];
        let relays = relays.each_ref().map(String::as_str);
        // The shortest lease of all is the shortest quarantine.
        let short = ["--lock-default-ttl", "1s", "--lock-fresh-start"];
        let (user, history, lock) =
            join!(two(stack, "user", &[]), two(stack, "history", &relays), two(stack, "lock", &short));
        Self { stack, user, history, lock, broadcast }
    }

    /// The instances of all services.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Service> {
        [&mut self.user, &mut self.history, &mut self.lock, &mut self.broadcast].into_iter().flatten()
    }

    /// Ends everything.
    ///
    /// # Panics
    /// If a service has ended by itself, or something in it has panicked.
    pub(crate) async fn close(mut self) {
        for service in self.all() {
            service.assert_is_well();
        }
        let stack = self.stack;
        drop(self);
        join!(stack.postgres().stop(), stack.redis().stop());
    }
}

async fn two(stack: &'static Devstack, name: &'static str, flags: &[&str]) -> Vec<Service> {
    let one = Service::on(stack, name, &[&GOING, flags].concat(), &[]).await;
    let other = one.another().await;
    vec![one, other]
}
