//! Sends what is planned: the users, then each conversation, line after line.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_proto::history::{self, conversation};
use tidings_proto::user::User;
use tokio::time::{self, MissedTickBehavior};

use super::difference::Difference;
use super::findings::Findings;
use super::hold::Hold;
use super::plan::{self, Conversation};
use super::progress::Done;
use super::services::{Error, Services};
use super::side_by_side::side_by_side;

const DURING: &str = "while sending";

/// Creates the users, `parallel` at once. Returns their names as the service has them.
pub(super) async fn users(
    services: &Services,
    users: &BTreeMap<String, String>,
    parallel: usize,
    done: &Done,
) -> Result<(BTreeMap<String, String>, Findings), Error> {
    let outcomes = side_by_side(users, parallel, async |(id, name)| {
        let mut findings = Findings::default();
        let stored = create_user(services, id, name, &mut findings).await?;
        done.add(1);
        Ok::<_, Error>((id.clone(), stored, findings))
    });
    let mut stored = BTreeMap::new();
    let mut all = Findings::default();
    for (id, name, findings) in outcomes.await? {
        stored.extend(name.map(|name| (id, name)));
        all.add(findings);
    }
    Ok((stored, all))
}

/// Creates a user, or accepts the one of an earlier replay of other logs, where the nick was spelled in another way.
async fn create_user(
    services: &Services,
    id: &str,
    name: &str,
    findings: &mut Findings,
) -> Result<Option<String>, Error> {
    let wanted = User { id: id.to_owned(), display_name: name.to_owned(), ..Default::default() };
    let stored = match services.create_user(wanted).await {
        Ok(answer) => {
            findings.tally.users_deduplicated += usize::from(answer.deduplicated);
            Ok(answer.user.unwrap_or_default())
        }
        Err(error) if error.contradiction().is_some_and(|failure| failure.reason == "USER_ID_TAKEN") => {
            findings.tally.users_deduplicated += 1;
            services.user(id).await
        }
        Err(error) => Err(error),
    };
    let difference = match stored {
        Ok(user) if user.id != id => Difference::user(id, "id", id, &user.id),
        Ok(user) if plan::same_user(&user.display_name, name) => return Ok(Some(user.display_name)),
        Ok(user) => Difference::user(id, "display_name", name, &user.display_name),
        Err(error) => match error.contradiction() {
            Some(failure) => Difference::user(id, "user", name, &failure.to_string()),
            None => return Err(error),
        },
    };
    findings.differ(Some(difference.during(DURING)));
    Ok(None)
}

/// Creates a conversation and sends its messages under its lock, each after the acknowledgement of the one before, no faster
/// than one every `pace`.
///
/// Returns whether all of it was acknowledged, and must be there from then on. It was not if the service refused because
/// of what it stores, e.g. because the log has changed since an earlier replay; that is a difference.
pub(super) async fn conversation(
    services: &Services,
    conversation: &Conversation,
    pace: Option<Duration>,
    done: &Done,
) -> Result<(bool, Findings), Error> {
    let mut hold = Hold::take(services, &conversation.id).await?;
    let mut findings = Findings::default();
    let refused = send(services, conversation, &mut hold, pace, done, &mut findings).await?;
    findings.tally.locks_lost += hold.release().await;
    let complete = refused.is_none();
    findings.differ(refused.map(|difference| difference.during(DURING)));
    Ok((complete, findings))
}

/// Sends until everything is acknowledged. Returns what the service refused.
async fn send(
    services: &Services,
    conversation: &Conversation,
    hold: &mut Hold<'_>,
    pace: Option<Duration>,
    done: &Done,
    findings: &mut Findings,
) -> Result<Option<Difference>, Error> {
    let wanted = history::Conversation {
        id: conversation.id.clone(),
        kind: conversation::Kind::Open.into(),
        title: conversation.title.clone(),
        ..Default::default()
    };
    if let Err(error) = hold.during(async || services.create_conversation(wanted.clone()).await).await {
        let failure = error.contradiction().map(ToString::to_string).ok_or(error)?;
        return Ok(Some(Difference::conversation(conversation, "conversation", &conversation.title, failure)));
    }
    let mut ticks = pace.map(time::interval);
    if let Some(ticks) = &mut ticks {
        // A pause of the service is not made up for: the pace is a promise to whoever else uses it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    for message in &conversation.messages {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let answer = match hold.during(async || services.append(&message.request).await).await {
            Ok(answer) => answer,
            Err(error) => return Difference::contradicted(conversation, message, &error).ok_or(error).map(Some),
        };
        findings.tally.acknowledged += 1;
        findings.tally.deduplicated += usize::from(answer.deduplicated);
        done.add(1);
        if findings.first.is_none() {
            let difference = Difference::find(conversation, Some(message), answer.message.as_ref());
            findings.differ(difference.map(|difference| difference.during("as acknowledged")));
        }
    }
    Ok(None)
}
