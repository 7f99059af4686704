//! The scenarios: at least one for every method of every contract, and an empty call.

mod broadcast;
mod fanout;
mod history;
mod lock;
mod user;
mod watch;

use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidings_proto::{Codec, METHODS};
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::call::{BenchCall, CallFailure};
use crate::context::{ScenarioContext, ScenarioSettings, scenario_call};

/// Creates the data that a scenario needs, and returns its call.
type Prepare = fn(Arc<ScenarioContext>) -> BoxFuture<'static, Result<BenchCall, CallFailure>>;

/// A call that can be measured.
#[derive(Debug)]
pub struct Scenario {
    /// Name of the scenario, e.g. `get-user`.
    pub name: &'static str,
    /// Description of one call. `--keys` and its like are the fields of
    /// [`WorkloadShape`](crate::WorkloadShape), as `tidings bench` names them.
    pub about: &'static str,
    /// The methods that one call uses, in order; without those of the preparation.
    pub methods: &'static [&'static str],
    prepare: Prepare,
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    methods: &'static [&'static str],
    prepare: Prepare,
) -> Scenario {
    Scenario { name, about, methods, prepare }
}

/// All scenarios, grouped by service.
#[rustfmt::skip] // one line per scenario
pub const SCENARIOS: &[Scenario] = &[
    scenario("empty", "makes an empty call: the upper bound for any service", &["grpc.health.v1.Health/Check"], |context| ready_call(empty(&context))),

    scenario("create-user", "creates a user", &["CreateUser"], |context| ready_call(user::create(&context))),
    scenario("get-user", "reads one of --keys users, cached", &["GetUser"], |context| Box::pin(user::get(context))),
    scenario("get-user-strong", "the same, from Postgres", &["GetUser"], |context| Box::pin(user::get_strong(context))),
    scenario("get-user-by-handle", "reads one of --keys users by handle, hint and user cached", &["GetUserByHandle"], |context| Box::pin(user::get_by_handle(context))),
    scenario("batch-get-users", "reads --batch of --keys users, cached", &["BatchGetUsers"], |context| Box::pin(user::batch_get(context))),
    scenario("list-users", "reads a page of --batch of --keys users by handle, from Postgres", &["ListUsers"], |context| Box::pin(user::list(context))),
    scenario("update-user", "changes one of --keys users", &["UpdateUser"], |context| Box::pin(user::update(context))),
    scenario("update-seen", "changes one of --keys users, and reads until cached reads over every connection show it", &["UpdateUser", "GetUser"], |context| Box::pin(user::update_seen(context))),
    scenario("delete-user", "creates a user and deletes it, both in the latency", &["CreateUser", "DeleteUser"], |context| ready_call(user::delete(&context))),
    scenario("watch-users", "changes a user, and waits until --subscribers watchers have the version: items/s are deliveries", &["UpdateUser", "WatchUsers"], |context| Box::pin(watch::watch(context))),

    scenario("create-conversation", "creates a conversation", &["CreateConversation"], |context| ready_call(history::create(&context))),
    scenario("get-conversation", "reads one of --keys conversations", &["GetConversation"], |context| Box::pin(history::get(context))),
    scenario("append-message", "appends to one of --keys conversations", &["AppendMessage"], |context| Box::pin(history::append(context))),
    scenario("batch-append-messages", "appends --batch messages, each to another of --keys", &["BatchAppendMessages"], |context| Box::pin(history::batch_append(context))),
    scenario("get-message", "reads one message", &["GetMessage"], |context| Box::pin(history::get_message(context))),
    scenario("list-messages", "reads the newest page of --batch messages, cached", &["ListMessages"], |context| Box::pin(history::list(context))),
    scenario("list-messages-old", "reads the first page of --batch messages, from Postgres", &["ListMessages"], |context| Box::pin(history::list_old(context))),
    scenario("list-user-messages", "reads the newest --batch messages of a user", &["ListUserMessages"], |context| Box::pin(history::list_user(context))),

    scenario("acquire-release", "acquires a free lock and releases it, both in the latency", &["AcquireLock", "ReleaseLock"], |context| ready_call(lock::acquire_release(&context))),
    scenario("lock-hand-over", "the same, with one lock for all callers: latency includes the wait for it", &["AcquireLock", "ReleaseLock"], |context| ready_call(lock::hand_over(&context))),
    scenario("renew-lock", "renews a lease", &["RenewLock"], |context| Box::pin(lock::renew(context))),
    scenario("check-lock", "checks the token of a held lock", &["CheckLock"], |context| Box::pin(lock::check(context))),
    scenario("get-lock", "reads the holder of a lock", &["GetLock"], |context| Box::pin(lock::get(context))),

    scenario("publish", "publishes to one of --keys channels", &["Publish"], |context| ready_call(broadcast::publish(&context))),
    scenario("batch-publish", "publishes --batch messages, each to another of --keys", &["BatchPublish"], |context| ready_call(broadcast::batch_publish(&context))),
    scenario("subscribe", "publishes, and waits until --subscribers have the message: items/s are deliveries", &["Publish", "Subscribe"], |context| Box::pin(fanout::subscribe(context))),
    scenario("get-channel", "reads the head of a channel", &["GetChannel"], |context| ready_call(broadcast::get(&context))),
];

impl Scenario {
    /// Returns the scenario of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Returns the service that the scenario calls, e.g. `lock`; for the empty call, which all
    /// serve, `user`.
    pub fn service(&self) -> &'static str {
        let method = METHODS.iter().find(|method| self.methods.contains(&method.short_name()));
        method.and_then(|method| package(method.contract())).unwrap_or("user")
    }

    /// Creates the data that the scenario needs, and returns its call.
    ///
    /// # Errors
    /// A call of the preparation failed.
    pub async fn prepare(&self, settings: &ScenarioSettings) -> Result<BenchCall, CallFailure> {
        (self.prepare)(Arc::new(ScenarioContext::new(settings))).await
    }
}

/// Returns the service of a contract: `user` for `tidings.user.v1.UserService`.
fn package(contract: &'static str) -> Option<&'static str> {
    contract.split('.').nth(1)
}

/// Returns a call that needs no preparation.
fn ready_call(call: BenchCall) -> BoxFuture<'static, Result<BenchCall, CallFailure>> {
    Box::pin(ready(Ok(call)))
}

/// Returns a call of the health check. It sends no field and reads none, so it needs no contract.
fn empty(context: &Arc<ScenarioContext>) -> BenchCall {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    scenario_call(context, async |context, slot| {
        let send = |channel: Channel, request| async move {
            let mut client = Grpc::new(channel);
            client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            client.unary(request, PathAndQuery::from_static(CHECK), Codec::<(), ()>::default()).await
        };
        let () = context.call(slot.caller, (), send).await?;
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
    fn a_scenario_calls_existing_methods_of_one_service() {
        for scenario in &SCENARIOS[1..] {
            for name in scenario.methods {
                let of = METHODS.iter().filter(|method| method.short_name() == *name);
                let of: Vec<_> = of.map(|method| package(method.contract()).unwrap()).collect();
                assert_eq!(of, [scenario.service()], "{}: {name}", scenario.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();

        assert_eq!(names.len(), SCENARIOS.len());
        assert_eq!(Scenario::find("get-user").map(|scenario| scenario.name), Some("get-user"));
    }
}
