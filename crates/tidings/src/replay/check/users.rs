//! Checks that users are read back equal, and counts the cache hits of the second read.

use std::collections::BTreeMap;

use tidings_proto::user::ReadInfo;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;

use crate::replay::clients::{Error, ServiceClients};
use crate::replay::concurrent::map_concurrently;
use crate::replay::difference::Difference;
use crate::replay::findings::ReplayFindings;
use crate::replay::progress::DoneCount;

/// Users in one call.
const BATCH: usize = 100;

/// Compares users with their expected display names: in batches twice, then one by one.
pub(in crate::replay) async fn check(
    clients: &ServiceClients,
    users: &BTreeMap<String, String>,
    parallel: usize,
    done: &DoneCount,
) -> Result<ReplayFindings, Error> {
    let users: Vec<_> = users.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    let mut all = ReplayFindings::default();
    let first = map_concurrently(users.chunks(BATCH), parallel, async |users| batch(clients, users, done).await);
    for mut findings in first.await? {
        // Cache hits are counted for the second read only.
        (findings.counts.users_read_again, findings.counts.users_from_cache) = (0, 0);
        all.add(findings);
    }
    let second = map_concurrently(users.chunks(BATCH), parallel, async |users| batch(clients, users, done).await);
    let single = async |(id, name)| {
        let difference = match clients.user(id).await {
            Ok(user) => difference(id, name, Some((&user.id, &user.display_name))),
            Err(error) if error.precondition_failure().is_some() => difference(id, name, None),
            Err(error) => return Err(error),
        };
        let mut findings = ReplayFindings::default();
        findings.record(difference.map(|difference| difference.in_phase("read by GetUser")));
        done.add(1);
        Ok(findings)
    };
    for findings in second.await?.into_iter().chain(map_concurrently(users.iter().copied(), parallel, single).await?) {
        all.add(findings);
    }
    Ok(all)
}

async fn batch(clients: &ServiceClients, users: &[(&str, &str)], done: &DoneCount) -> Result<ReplayFindings, Error> {
    let mut findings = ReplayFindings::default();
    let results = clients.users(users.iter().map(|(id, _)| (*id).to_owned()).collect()).await?;
    for (index, (id, name)) in users.iter().enumerate() {
        let result = results.get(index).filter(|result| result.outcome() == Outcome::Found);
        let user = result.and_then(|result| result.user.as_ref());
        let difference = difference(id, name, user.map(|user| (user.id.as_str(), user.display_name.as_str())));
        findings.record(difference.map(|difference| difference.in_phase("read by BatchGetUsers")));
        let source = result.and_then(|result| result.read_info.as_ref()).map(ReadInfo::source);
        findings.counts.users_from_cache += usize::from(matches!(source, Some(Source::LocalCache | Source::Redis)));
    }
    findings.counts.users_read_again += users.len();
    done.add(users.len());
    Ok(findings)
}

fn difference(id: &str, name: &str, read: Option<(&str, &str)>) -> Option<Difference> {
    match read {
        Some(read) if read == (id, name) => None,
        Some((read, _)) if read != id => Some(Difference::user(id, "id", id, read)),
        Some((_, read)) => Some(Difference::user(id, "display_name", name, read)),
        None => Some(Difference::user(id, "user", name, "no such user")),
    }
}
