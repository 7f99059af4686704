//! Users are read back equal, the second time from the cache.

use std::collections::BTreeMap;

use tidings_proto::user::ReadInfo;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;

use crate::replay::difference::Difference;
use crate::replay::findings::Findings;
use crate::replay::progress::Done;
use crate::replay::services::{Error, Services};
use crate::replay::side_by_side::side_by_side;

/// Users read by one call.
const BATCH: usize = 100;

/// Compares users with the names they must have: in batches twice, then one by one.
pub(in crate::replay) async fn check(
    services: &Services,
    users: &BTreeMap<String, String>,
    parallel: usize,
    done: &Done,
) -> Result<Findings, Error> {
    let users: Vec<_> = users.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    let mut all = Findings::default();
    let first = side_by_side(users.chunks(BATCH), parallel, async |users| batch(services, users, done).await);
    for mut findings in first.await? {
        (findings.tally.users_read_again, findings.tally.users_from_cache) = (0, 0); // this is the first reading
        all.add(findings);
    }
    let second = side_by_side(users.chunks(BATCH), parallel, async |users| batch(services, users, done).await);
    let single = async |(id, name)| {
        let difference = match services.user(id).await {
            Ok(user) => differ(id, name, Some((&user.id, &user.display_name))),
            Err(error) if error.contradiction().is_some() => differ(id, name, None),
            Err(error) => return Err(error),
        };
        let mut findings = Findings::default();
        findings.differ(difference.map(|difference| difference.during("read by GetUser")));
        done.add(1);
        Ok(findings)
    };
    for findings in second.await?.into_iter().chain(side_by_side(users.iter().copied(), parallel, single).await?) {
        all.add(findings);
    }
    Ok(all)
}

async fn batch(services: &Services, users: &[(&str, &str)], done: &Done) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let results = services.users(users.iter().map(|(id, _)| (*id).to_owned()).collect()).await?;
    for (place, (id, name)) in users.iter().enumerate() {
        let result = results.get(place).filter(|result| result.outcome() == Outcome::Found);
        let user = result.and_then(|result| result.user.as_ref());
        let difference = differ(id, name, user.map(|user| (user.id.as_str(), user.display_name.as_str())));
        findings.differ(difference.map(|difference| difference.during("read by BatchGetUsers")));
        let source = result.and_then(|result| result.read_info.as_ref()).map(ReadInfo::source);
        findings.tally.users_from_cache += usize::from(matches!(source, Some(Source::Near | Source::Redis)));
    }
    findings.tally.users_read_again += users.len();
    done.add(users.len());
    Ok(findings)
}

fn differ(id: &str, name: &str, read: Option<(&str, &str)>) -> Option<Difference> {
    match read {
        Some(read) if read == (id, name) => None,
        Some((read, _)) if read != id => Some(Difference::user(id, "id", id, read)),
        Some((_, read)) => Some(Difference::user(id, "display_name", name, read)),
        None => Some(Difference::user(id, "user", name, "no such user")),
    }
}
