//! Many users in one call: one read of the cache, one of Postgres, one round of leases, one of fills.

use std::collections::{BTreeMap, BTreeSet};

use super::read::from_postgres;
use super::{Error, Users};
use crate::cache::{Fill, Leased, Token};
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
        let ids: BTreeSet<UserId> = ids.iter().cloned().collect();
        if strong {
            let ids: Vec<UserId> = ids.into_iter().collect();
            return Ok(all(&ids, self.store.accounts.read_many(&ids).await?));
        }
        let mut known = BTreeMap::new();
        let (mut asked, mut missed) = (Vec::new(), Vec::new());
        for id in ids {
            if self.writes.is_missed(&id) {
                missed.push(id);
                continue;
            }
            match self.read_near(&id, 0) {
                Some(read) => drop(known.insert(id, read)),
                None => asked.push(id),
            }
        }
        let (mut missing, tokens) =
            if asked.is_empty() { (Vec::new(), BTreeMap::new()) } else { self.read_cache(asked, &mut known).await };
        missing.extend(missed);
        if !missing.is_empty() {
            self.load_many(&missing, &tokens, &mut known).await?;
        }
        Ok(known)
    }

    /// Reads what the memory of this instance did not have. Returns what the cache did not have, or was not asked for, and the
    /// rights to fill it.
    async fn read_cache(
        &self,
        ids: Vec<UserId>,
        known: &mut BTreeMap<UserId, Read>,
    ) -> (Vec<UserId>, BTreeMap<UserId, Token>) {
        let tickets: Vec<_> = ids.iter().map(|id| self.near.ticket(id)).collect();
        let (values, reign) = match self.cache.get_many(&ids).await {
            Ok(values) => values,
            Err(error) => {
                self.missed(&error);
                return (ids, BTreeMap::new());
            }
        };
        let (mut missing, mut old) = (Vec::new(), Vec::new());
        for ((id, ticket), value) in ids.into_iter().zip(tickets).zip(values) {
            let Some(cached) = value else {
                missing.push(id);
                continue;
            };
            if let Some(ticket) = ticket {
                self.near.keep(ticket, &reign, &id, &cached);
            }
            if self.cache.is_old(&cached) {
                old.push(id.clone());
            }
            match self.believed(cached, Source::Redis) {
                Some(read) => drop(known.insert(id, read)),
                None => missing.push(id),
            }
        }
        if !old.is_empty() {
            self.refresh(old);
        }
        let tokens = if missing.is_empty() { BTreeMap::new() } else { self.lease_many(&missing).await };
        (missing, tokens)
    }

    /// Asks for the right to fill what the cache did not have.
    async fn lease_many(&self, missing: &[UserId]) -> BTreeMap<UserId, Token> {
        let leases = self.cache.lease_many(missing, Fill::Absent).await.unwrap_or_else(|error| {
            self.missed(&error);
            Vec::new()
        });
        let mut tokens = BTreeMap::new();
        for (id, leased) in missing.iter().zip(leases) {
            self.numbers.leased(&leased);
            if let Leased::Granted(token) = leased {
                tokens.insert(id.clone(), token);
            }
        }
        tokens
    }

    /// Reads what the cache did not have, and fills what nobody else is about to fill.
    async fn load_many(
        &self,
        missing: &[UserId],
        tokens: &BTreeMap<UserId, Token>,
        known: &mut BTreeMap<UserId, Read>,
    ) -> Result<(), Error> {
        let records = match self.store.accounts.read_many(missing).await {
            Ok(records) => all(missing, records),
            Err(fault) if !known.is_empty() && fault.is_away() => {
                // What is known is told, and that it may be old.
                for read in known.values_mut() {
                    read.stale = true;
                }
                return Ok(());
            }
            Err(fault) => return Err(fault.into()),
        };
        let fills: Vec<_> =
            records.iter().filter_map(|(id, read)| Some((id.clone(), *tokens.get(id)?, read.record.clone()))).collect();
        fail::fail_point!("user::before_fill");
        if let Err(error) = self.cache.fill_many(&fills).await {
            self.missed(&error);
        }
        known.extend(records);
        Ok(())
    }
}

/// What Postgres said of all these; ids without a row are told as absent.
fn all(ids: &[UserId], mut records: BTreeMap<UserId, Record>) -> BTreeMap<UserId, Read> {
    for id in ids {
        records.entry(id.clone()).or_insert(Record::Absent { version: 0 });
    }
    records.into_iter().map(|(id, record)| (id, from_postgres(record))).collect()
}
