//! What can be called: every method of every contract, and an empty call beside them.

mod broadcast;
mod fanout;
mod history;
mod lock;
mod user;
mod watched;

use std::fmt::Write as _;
use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidings_proto::METHODS;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_client::HealthClient;

use super::ground::{Ground, calls};
use crate::address::{self, Service};
use crate::load::{Call, Fault};

/// Makes what the calls of a scenario need, then says what is called.
type Prepare = fn(Arc<Ground>) -> BoxFuture<'static, Result<Call, Fault>>;

/// Something that can be called again and again.
#[derive(Debug)]
pub(super) struct Scenario {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// What one call of it is.
    pub(super) about: &'static str,
    /// The methods that one call of it calls, one after the other; what is called beforehand is not listed.
    pub(super) methods: &'static [&'static str],
    /// Gets it ready.
    pub(super) prepare: Prepare,
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    methods: &'static [&'static str],
    prepare: Prepare,
) -> Scenario {
    Scenario { name, about, methods, prepare }
}

/// All of them, service by service.
#[rustfmt::skip] // a line each
pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("empty", "an empty call: what any service could do at most", &["grpc.health.v1.Health/Check"], |ground| at_once(empty(&ground))),

    scenario("create-user", "creates a user", &["CreateUser"], |ground| at_once(user::create(&ground))),
    scenario("get-user", "reads one of --keys users, cached", &["GetUser"], |ground| Box::pin(user::get(ground))),
    scenario("get-user-strong", "the same, from Postgres", &["GetUser"], |ground| Box::pin(user::get_strong(ground))),
    scenario("get-user-by-handle", "reads one of --keys users by handle, hint and user cached", &["GetUserByHandle"], |ground| Box::pin(user::get_by_handle(ground))),
    scenario("batch-get-users", "reads --batch of --keys users, cached", &["BatchGetUsers"], |ground| Box::pin(user::batch_get(ground))),
    scenario("list-users", "reads a page of --batch of --keys users by handle, from Postgres", &["ListUsers"], |ground| Box::pin(user::list(ground))),
    scenario("update-user", "changes one of --keys users", &["UpdateUser"], |ground| Box::pin(user::update(ground))),
    scenario("update-seen", "changes one of --keys users, until plain reads over every connection show it", &["UpdateUser", "GetUser"], |ground| Box::pin(user::update_seen(ground))),
    scenario("delete-user", "creates a user and deletes it, both timed", &["CreateUser", "DeleteUser"], |ground| at_once(user::delete(&ground))),
    scenario("watch-users", "changes a user, until the last of --subscribers was told: items/s are versions told", &["UpdateUser", "WatchUsers"], |ground| Box::pin(watched::watch(ground))),

    scenario("create-conversation", "creates a conversation", &["CreateConversation"], |ground| at_once(history::create(&ground))),
    scenario("get-conversation", "reads one of --keys conversations", &["GetConversation"], |ground| Box::pin(history::get(ground))),
    scenario("append-message", "appends to one of --keys conversations", &["AppendMessage"], |ground| Box::pin(history::append(ground))),
    scenario("batch-append-messages", "appends --batch messages, each to another of --keys", &["BatchAppendMessages"], |ground| Box::pin(history::batch_append(ground))),
    scenario("get-message", "reads one message", &["GetMessage"], |ground| Box::pin(history::get_message(ground))),
    scenario("list-messages", "reads the newest page of --batch messages, cached", &["ListMessages"], |ground| Box::pin(history::list(ground))),
    scenario("list-messages-old", "reads the first page of --batch messages, from Postgres", &["ListMessages"], |ground| Box::pin(history::list_old(ground))),
    scenario("list-user-messages", "reads the newest --batch messages of a user", &["ListUserMessages"], |ground| Box::pin(history::list_user(ground))),

    scenario("acquire-release", "takes a free lock and releases it, both timed", &["AcquireLock", "ReleaseLock"], |ground| at_once(lock::acquire_release(&ground))),
    scenario("lock-hand-over", "the same, all on one lock: latency is the wait for it", &["AcquireLock", "ReleaseLock"], |ground| at_once(lock::hand_over(&ground))),
    scenario("renew-lock", "renews a lease", &["RenewLock"], |ground| Box::pin(lock::renew(ground))),
    scenario("check-lock", "checks the token of a held lock", &["CheckLock"], |ground| Box::pin(lock::check(ground))),
    scenario("get-lock", "asks who holds a lock", &["GetLock"], |ground| Box::pin(lock::get(ground))),

    scenario("publish", "publishes to one of --keys channels", &["Publish"], |ground| at_once(broadcast::publish(&ground))),
    scenario("batch-publish", "publishes --batch messages, each to another of --keys", &["BatchPublish"], |ground| at_once(broadcast::batch_publish(&ground))),
    scenario("subscribe", "publishes, until the last of --subscribers has it: items/s are deliveries", &["Publish", "Subscribe"], |ground| Box::pin(fanout::subscribe(ground))),
    scenario("get-channel", "asks where a channel stands", &["GetChannel"], |ground| at_once(broadcast::get(&ground))),
];

impl Scenario {
    /// Which service it calls. Every service answers empty calls; one of them has to be asked.
    pub(super) fn service(&self) -> Service {
        let method = METHODS.iter().find(|method| self.methods.contains(&method.short_name()));
        method.and_then(|method| Service::of(method.contract())).unwrap_or(address::USER)
    }
}

/// The scenario of this name.
pub(super) fn find(name: &str) -> Result<&'static Scenario, String> {
    /// How alike a name must be (1: equal) to be proposed, by Jaro and Winkler.
    const ALIKE: f64 = 0.8;
    if let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) {
        return Ok(scenario);
    }
    let alike = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = SCENARIOS.iter().map(|scenario| scenario.name).max_by(|a, b| alike(a).total_cmp(&alike(b)));
    Err(match nearest.filter(|nearest| alike(nearest) >= ALIKE) {
        Some(nearest) => format!("expected a scenario; did you mean {nearest}?"),
        None => "expected a scenario; `tidings bench --list` lists them".to_owned(),
    })
}

/// What there is, a line each.
pub(super) fn list() -> String {
    SCENARIOS.iter().fold(String::new(), |mut text, scenario| {
        let _ = writeln!(text, "  {:<21} {}", scenario.name, scenario.about);
        text
    })
}

/// The same with the methods of each.
pub(super) fn methods() -> String {
    let lines = SCENARIOS.iter().map(|Scenario { name, about, methods, .. }| {
        format!("{name:<21} {about}\n{:<21}   {}", "", methods.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A call that needs nothing first.
fn at_once(call: Call) -> BoxFuture<'static, Result<Call, Fault>> {
    Box::pin(ready(Ok(call)))
}

fn empty(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let request = HealthCheckRequest::default();
        let send = |channel, request| async move { HealthClient::new(channel).check(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_of_the_contracts_has_a_scenario() {
        let called: BTreeSet<_> = SCENARIOS.iter().flat_map(|scenario| scenario.methods).copied().collect();
        let missing: Vec<_> = METHODS.iter().filter(|method| !called.contains(method.short_name())).collect();

        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_scenario_calls_methods_that_are_there_and_of_one_service() {
        for scenario in &SCENARIOS[1..] {
            for name in scenario.methods {
                let of = METHODS.iter().filter(|method| method.short_name() == *name);
                let of: Vec<_> = of.map(|method| Service::of(method.contract()).unwrap()).collect();
                assert_eq!(of, [scenario.service()], "{}: {name}", scenario.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_a_wrong_one_gets_a_proposal() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());

        assert_eq!(find("get-user").map(|scenario| scenario.name), Ok("get-user"));
        assert!(find("get-usr").is_err_and(|hint| hint.contains("did you mean get-user")));
        assert!(find("frobnicate").is_err_and(|hint| hint.contains("--list")));
    }
}
