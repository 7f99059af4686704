//! Many users in one call: one read of the cache, one of Postgres, one round of leases, one of fills.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Error, Users};
use crate::cache::{Leased, Token};
use crate::model::{Read, Record, Source, UserId};

impl Users {
    /// Reads many users. Ids that nobody could say anything about, because Postgres did not answer, are left out.
    pub async fn get_many(&self, ids: &[UserId], strong: bool) -> Result<BTreeMap<UserId, Read>, Error> {
        let reads = self.read_many(ids, strong).await?;
        for read in reads.values() {
            self.numbers.read(read);
        }
        Ok(reads)
    }

    async fn read_many(&self, ids: &[UserId], strong: bool) -> Result<BTreeMap<UserId, Read>, Error> {
        let ids: Vec<UserId> = ids.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if strong {
            return self.without_cache(&ids).await;
        }
        let values = match self.cache.get_many(&ids).await {
            Ok(values) => values,
            Err(error) => {
                self.missed(&error);
                return self.without_cache(&ids).await;
            }
        };
        let mut known = BTreeMap::new();
        let mut missing = Vec::new();
        for (id, value) in ids.into_iter().zip(values) {
            match value.map(|cached| self.cached(cached)) {
                // That there is no user is told only while Postgres answers, as for one.
                Some(Read { record: Record::Absent { .. }, stale: true, .. }) | None => missing.push(id),
                Some(read) => drop(known.insert(id, read)),
            }
        }
        if !missing.is_empty() {
            self.load_many(missing, &mut known).await?;
        }
        Ok(known)
    }

    async fn without_cache(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, Read>, Error> {
        Ok(self.read_postgres(ids).await?.into_iter().map(|(id, record)| (id, postgres(record))).collect())
    }

    /// Reads what the cache did not have, and fills what nobody else is about to fill.
    async fn load_many(&self, missing: Vec<UserId>, known: &mut BTreeMap<UserId, Read>) -> Result<(), Error> {
        let leases = self.cache.lease_many(&missing).await.unwrap_or_else(|error| {
            self.missed(&error);
            Vec::new()
        });
        for leased in &leases {
            self.numbers.leased(leased);
        }
        let tokens: BTreeMap<UserId, Token> = missing
            .iter()
            .zip(leases)
            .filter_map(|(id, lease)| match lease {
                Leased::Granted(token) => Some((id.clone(), token)),
                Leased::Taken | Leased::Present(_) | Leased::Unreadable => None,
            })
            .collect();
        let records = match self.read_postgres(&missing).await {
            Ok(records) => records,
            Err(error) if !known.is_empty() && error.is_away() => {
                // What is known is told, and that it may be old.
                for read in known.values_mut() {
                    read.stale = true;
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let fills: Vec<_> =
            records.iter().filter_map(|(id, record)| Some((id.clone(), *tokens.get(id)?, record.clone()))).collect();
        if let Err(error) = self.cache.fill_many(&fills).await {
            self.missed(&error);
        }
        known.extend(records.into_iter().map(|(id, record)| (id, postgres(record))));
        Ok(())
    }

    /// One statement; ids without a row are told as absent.
    async fn read_postgres(&self, ids: &[UserId]) -> Result<BTreeMap<UserId, Record>, Error> {
        let mut records = self.store.accounts.read_many(ids).await?;
        for id in ids {
            records.entry(id.clone()).or_insert(Record::Absent { version: 0 });
        }
        Ok(records)
    }
}

fn postgres(record: Record) -> Read {
    Read { record, source: Source::Postgres, age: Duration::ZERO, stale: false }
}
