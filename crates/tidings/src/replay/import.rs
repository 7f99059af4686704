//! Sends the plan: first the users, then each conversation, line by line.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_proto::history::{self, conversation};
use tidings_proto::user::{ErrorReason, User};
use tidings_status::Failure;
use tokio::time::{self, MissedTickBehavior};

use super::clients::{Error, ServiceClients};
use super::concurrent::map_concurrently;
use super::difference::Difference;
use super::findings::ReplayFindings;
use super::import_lock::ImportLock;
use super::plan::{self, PlannedConversation};
use super::progress::DoneCount;

const PHASE: &str = "while sending";

/// Creates the users, `parallel` at once. Returns their display names as stored, by id.
pub(super) async fn users(
    clients: &ServiceClients,
    users: &BTreeMap<String, String>,
    parallel: usize,
    done: &DoneCount,
) -> Result<(BTreeMap<String, String>, ReplayFindings), Error> {
    let outcomes = map_concurrently(users, parallel, async |(id, name)| {
        let mut findings = ReplayFindings::default();
        let stored = create_user(clients, id, name, &mut findings).await?;
        done.add(1);
        Ok::<_, Error>((id.clone(), stored, findings))
    });
    let mut stored = BTreeMap::new();
    let mut all = ReplayFindings::default();
    for (id, name, findings) in outcomes.await? {
        stored.extend(name.map(|name| (id, name)));
        all.add(findings);
    }
    Ok((stored, all))
}

/// Creates a user. Accepts an existing user from another replay whose nick differs only in case.
async fn create_user(
    clients: &ServiceClients,
    id: &str,
    name: &str,
    findings: &mut ReplayFindings,
) -> Result<Option<String>, Error> {
    let wanted = User { id: id.to_owned(), display_name: name.to_owned(), ..Default::default() };
    let stored = match clients.create_user(wanted).await {
        Ok(response) => {
            findings.counts.users_deduplicated += usize::from(response.deduplicated);
            Ok(response.user.unwrap_or_default())
        }
        Err(error) if error.precondition_failure().is_some_and(is_id_taken) => {
            findings.counts.users_deduplicated += 1;
            clients.user(id).await
        }
        Err(error) => Err(error),
    };
    let difference = match stored {
        Ok(user) if user.id != id => Difference::user(id, "id", id, &user.id),
        Ok(user) if plan::same_user(&user.display_name, name) => return Ok(Some(user.display_name)),
        Ok(user) => Difference::user(id, "display_name", name, &user.display_name),
        Err(error) => match error.precondition_failure() {
            Some(failure) => Difference::user(id, "user", name, &failure.to_string()),
            None => return Err(error),
        },
    };
    findings.record(Some(difference.in_phase(PHASE)));
    Ok(None)
}

fn is_id_taken(failure: &Failure) -> bool {
    failure.reason == ErrorReason::UserIdTaken.text()
}

/// Creates a conversation and sends its messages under its lock. Each message is sent after the
/// acknowledgement of the previous one, and at most one every `interval`.
///
/// Returns whether every message was acknowledged. If the service refuses a message because of the
/// data it stores, e.g. because the log changed since an earlier replay, that is recorded as a
/// difference.
pub(super) async fn conversation(
    clients: &ServiceClients,
    conversation: &PlannedConversation,
    interval: Option<Duration>,
    done: &DoneCount,
) -> Result<(bool, ReplayFindings), Error> {
    let mut lock = ImportLock::acquire(clients, &conversation.id).await?;
    let mut findings = ReplayFindings::default();
    let refused = send(clients, conversation, &mut lock, interval, done, &mut findings).await?;
    findings.counts.locks_lost += lock.release().await;
    let complete = refused.is_none();
    findings.record(refused.map(|difference| difference.in_phase(PHASE)));
    Ok((complete, findings))
}

/// Sends all messages. Stops at the first refused one and returns it.
async fn send(
    clients: &ServiceClients,
    conversation: &PlannedConversation,
    lock: &mut ImportLock<'_>,
    interval: Option<Duration>,
    done: &DoneCount,
    findings: &mut ReplayFindings,
) -> Result<Option<Difference>, Error> {
    let wanted = history::Conversation {
        id: conversation.id.clone(),
        kind: conversation::Kind::Open.into(),
        title: conversation.title.clone(),
        ..Default::default()
    };
    if let Err(error) = lock.call_locked(async || clients.create_conversation(wanted.clone()).await).await {
        let failure = error.precondition_failure().map(ToString::to_string).ok_or(error)?;
        return Ok(Some(Difference::conversation(conversation, "conversation", &conversation.title, failure)));
    }
    let mut ticks = interval.map(time::interval);
    if let Some(ticks) = &mut ticks {
        // No catching up after a pause of the service: `--speed` also protects its other callers.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    for message in &conversation.messages {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let response = match lock.call_locked(async || clients.append(&message.request).await).await {
            Ok(response) => response,
            Err(error) => return Difference::refused(conversation, message, &error).ok_or(error).map(Some),
        };
        findings.counts.acknowledged += 1;
        findings.counts.deduplicated += usize::from(response.deduplicated);
        done.add(1);
        if findings.first.is_none() {
            let difference = Difference::find(conversation, Some(message), response.message.as_ref());
            findings.record(difference.map(|difference| difference.in_phase("as acknowledged")));
        }
    }
    Ok(None)
}
