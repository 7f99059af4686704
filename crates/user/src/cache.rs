//! Redis: cached profiles under leases.
//!
//! `u:{id}` holds the value (see [`value`]), `l:{id}` the token of the one reader that may fill it, `h:{handle}` whose handle it
//! may be (see [`hints`]). Losing any at any time costs a miss and nothing else.
//!
//! Every script is safe to run twice and late, so it makes no difference whether a write that got no answer was done: a lease
//! runs out, a fill needs its lease, and what a writer could not apply the relay does again.

mod hints;
mod looks;
pub mod news;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use tidings_redis::{Args, Call, Lane, OpenError, Redis, Script, Tracker, cmd};

pub use tidings_redis::{Error, Heard};
pub use value::Cached;

use self::looks::Looks;
use crate::model::{Record, UserId, UserVersion};

/// How much a life in the cache is shortened or lengthened at random, in percent, so that values that were stored
/// together do not expire together.
const JITTER_PERCENT: u64 = 15;

/// What our keys begin with, after the prefix.
pub const SERVICE: &str = "user";

/// What the names of all values begin with.
const VALUE_NAMES: &str = "u:{";

/// What scripts answer that met another reign than that of their keys.
const OTHER_REIGN: u8 = 3;

/// How long things stay in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A profile.
    pub present: Duration,
    /// A profile or the absence of one, until it is read anew while it is still answered.
    pub soft: Duration,
    /// The knowledge that there is no user.
    pub absent: Duration,
    /// The right to fill.
    pub lease: Duration,
}

/// The cached profiles.
pub struct Cache {
    redis: Redis,
    looks: Looks,
    lives: Lives,
    lease: Script,
    fill: Script,
    release: Script,
    apply: Script,
    forget: Script,
    hint: Script,
}

/// The right of one reader to fill one value.
#[derive(Clone, Copy, Debug)]
pub struct Token([u8; 16]);

/// What a reader wants to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// A value that is not there.
    Absent,
    /// One that is there, too: it is old.
    Old,
}

/// The lease of another reader.
#[derive(Clone, Debug)]
pub struct Other(Vec<u8>);

/// What became of the wish to fill a value.
#[derive(Debug)]
pub enum Leased {
    /// Read Postgres and fill.
    Granted(Token),
    /// Another reader is about to, under this lease.
    Taken(Other),
    /// It is there by now.
    Present(Cached),
    /// Something is there that this release can not read: it is left alone.
    Unreadable,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Stored.
    Stored,
    /// The lease had expired, been evicted, or been killed by a write.
    LeaseGone,
    /// A newer version is there.
    Newer,
}

/// Has it told which values have changed, of those in one Redis, for as long as the tracker lives. [`whose`] reads the names.
///
/// # Errors
/// The driver's, if the URL can not be used at all.
pub fn track(args: &Args, hear: impl Fn(Heard<'_>) + Send + Sync + 'static) -> Result<Tracker, OpenError> {
    Tracker::open(args, SERVICE, VALUE_NAMES, hear)
}

impl Cache {
    /// The cached profiles in one Redis.
    pub fn new(redis: Redis, lives: Lives) -> Self {
        Self {
            looks: Looks::new(redis.clone()),
            redis,
            lives,
            lease: Script::new(include_str!("cache/lease.lua")),
            fill: Script::new(include_str!("cache/fill.lua")),
            release: Script::new(include_str!("cache/release.lua")),
            apply: Script::new(include_str!("cache/apply.lua")),
            forget: Script::new(include_str!("cache/forget.lua")),
            hint: Script::new(include_str!("cache/hint.lua")),
        }
    }

    /// The value of one id, and the reign that answered. One round trip, shared with others who look at the same time.
    pub async fn get(&self, id: &UserId) -> Result<(Option<Cached>, Arc<str>), Error> {
        let (value, reign) = self.looks.look(id).await?;
        Ok((value.and_then(|bytes| value::decode(id, bytes)), reign))
    }

    /// The values of many ids, in their order, and the reign that answered. One round trip.
    pub async fn get_many(&self, ids: &[UserId]) -> Result<(Vec<Option<Cached>>, Arc<str>), Error> {
        let (values, reign) = looks::ask(&self.redis, ids).await?;
        let values = ids.iter().zip(values).map(|(id, value)| value.and_then(|bytes| value::decode(id, bytes)));
        Ok((values.collect(), reign))
    }

    /// Asks for the right to fill one value that is not there. One round trip.
    pub async fn lease(&self, id: &UserId) -> Result<Leased, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let token = Token(rand::random());
        let answer = lane.write(&self.lease_call(&lane, id, token, Fill::Absent)).await.or_again()?;
        Ok(leased(id, token, answer))
    }

    /// Asks for the right to fill many values, in their order. One round trip.
    pub async fn lease_many(&self, ids: &[UserId], fill: Fill) -> Result<Vec<Leased>, Error> {
        let mut lane = self.redis.reader().await?;
        let tokens: Vec<Token> = ids.iter().map(|_| Token(rand::random())).collect();
        let calls: Vec<_> =
            ids.iter().zip(&tokens).map(|(id, token)| self.lease_call(&lane, id, *token, fill)).collect();
        let answers = lane.write_all(&calls).await.or_again()?;
        Ok(ids.iter().zip(tokens).zip(answers).map(|((id, token), answer)| leased(id, token, answer)).collect())
    }

    /// Fills one value with what was read from Postgres under its lease. One round trip.
    pub async fn fill(&self, id: &UserId, token: Token, record: &Record) -> Result<Filled, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let outcome: u8 = lane.write(&self.fill_call(&lane, id, token, record)).await.or_again()?;
        Ok(match outcome {
            1 => Filled::Stored,
            2 => Filled::Newer,
            _ => Filled::LeaseGone,
        })
    }

    /// Whether no write was told of since another reader's lease was met, if this version was read meanwhile: its lease still
    /// stands, or it has filled just this version. One round trip.
    pub async fn proves(&self, id: &UserId, other: &Other, version: i64) -> Result<bool, Error> {
        let mut lane = self.redis.reader().await?;
        let mut command = cmd("MGET");
        command.arg(lease_key(&lane, id)).arg(value_key(&lane, id));
        let (lease, value): (Option<Vec<u8>>, Option<Vec<u8>>) = lane.send(&command).await?;
        let cached = value.and_then(|bytes| value::decode(id, bytes));
        Ok(lease.is_some_and(|lease| lease == other.0)
            || cached.is_some_and(|cached| cached.record.version() == version))
    }

    /// Gives back the right to fill one value. One round trip.
    pub async fn release(&self, id: &UserId, token: Token) -> Result<(), Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let mut call = self.release.key(lease_key(&lane, id));
        call.arg(&token.0[..]);
        let _outcome: u8 = lane.write(&call).await.or_again()?;
        Ok(())
    }

    /// Fills many values. One round trip.
    pub async fn fill_many(&self, fills: &[(UserId, Token, Record)]) -> Result<(), Error> {
        if fills.is_empty() {
            return Ok(()); // without asking for a lane, which may be a wait
        }
        let mut lane = self.redis.reader().await?;
        let calls: Vec<_> = fills.iter().map(|(id, token, record)| self.fill_call(&lane, id, *token, record)).collect();
        let _outcomes: Vec<u8> = lane.write_all(&calls).await.or_again()?;
        Ok(())
    }

    /// Makes a committed write known, and says in which reign. One round trip. Safe to repeat, and safe in any order.
    pub async fn apply(&self, id: &UserId, record: &Record) -> Result<Arc<str>, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        match lane.write(&self.apply_call(&lane, id, record)).await.or_again()? {
            OTHER_REIGN => Err(lane.outlived()),
            _ => Ok(Arc::clone(lane.reign())),
        }
    }

    /// Makes many committed writes known, to the cache if it `has` them not in its reign, and then to those who watch. One round
    /// trip.
    pub async fn apply_many<'a>(
        &self,
        writes: impl Iterator<Item = (&'a UserId, &'a Record)>,
        has: impl Fn(&UserId, i64, &Arc<str>) -> bool,
    ) -> Result<(), Error> {
        let mut lane = self.redis.reader().await?;
        let writes: Vec<_> = writes.collect();
        if writes.is_empty() {
            return Ok(());
        }
        let untold = writes.iter().filter(|(id, record)| !has(id, record.version(), lane.reign()));
        let calls: Vec<_> = untold.map(|(id, record)| self.apply_call(&lane, id, record)).collect();
        let news = news::told(&lane, writes.iter().map(|(id, record)| record.version_of(id)));
        let outcomes: Vec<u8> = lane.write_all_then(&calls, news).await.or_again()?;
        if outcomes.contains(&OTHER_REIGN) {
            return Err(lane.outlived());
        }
        Ok(())
    }

    /// Forgets users who came to these versions, unless it `has` them in its reign, and then tells those who watch. One round
    /// trip.
    pub async fn forget_many(
        &self,
        versions: Vec<UserVersion>,
        has: impl Fn(&UserId, i64, &Arc<str>) -> bool,
    ) -> Result<(), Error> {
        let mut lane = self.redis.reader().await?;
        let mut call = self.forget.arg(&**lane.reign());
        for UserVersion { id, version, .. } in &versions {
            if !has(id, *version, lane.reign()) {
                call.key(value_key(&lane, id)).key(lease_key(&lane, id));
            }
        }
        let news = news::told(&lane, versions);
        let outcomes: Vec<u8> = lane.write_all_then(&[call], news).await.or_again()?;
        if outcomes.contains(&OTHER_REIGN) {
            return Err(lane.outlived());
        }
        Ok(())
    }

    fn lease_call(&self, lane: &Lane, id: &UserId, token: Token, fill: Fill) -> Call<'_> {
        let mut call = self.lease.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id));
        call.arg(&token.0[..]).arg(millis(self.lives.lease)).arg(u8::from(fill == Fill::Old));
        call
    }

    fn fill_call(&self, lane: &Lane, id: &UserId, token: Token, record: &Record) -> Call<'_> {
        let mut call = self.fill.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id)).arg(&token.0[..]);
        call.arg(value::encode(record, SystemTime::now())).arg(self.life(record));
        call
    }

    fn apply_call(&self, lane: &Lane, id: &UserId, record: &Record) -> Call<'_> {
        let mut call = self.apply.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id));
        call.arg(value::encode(record, SystemTime::now())).arg(self.life(record)).arg(&**lane.reign());
        call
    }

    /// Whether a value is so old that it is to be read anew, which is a little earlier or later for each.
    pub fn is_old(&self, cached: &Cached) -> bool {
        let since = cached.read.duration_since(UNIX_EPOCH).unwrap_or_default();
        let percent = 100 - JITTER_PERCENT + millis(since) % (2 * JITTER_PERCENT + 1);
        millis(cached.age()) > millis(self.lives.soft) * percent / 100
    }

    /// How long a record stays, in milliseconds.
    fn life(&self, record: &Record) -> u64 {
        jittered(match record {
            Record::Present(_) => self.lives.present,
            Record::Absent { .. } => self.lives.absent,
        })
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("redis", &self.redis).field("lives", &self.lives).finish_non_exhaustive()
    }
}

/// Whose value it is that is told of by this name.
pub fn whose(name: &str) -> Option<UserId> {
    let id = name.strip_prefix(VALUE_NAMES)?.strip_suffix('}')?;
    Some(UserId::new(id.to_owned()))
}

fn value_key(lane: &Lane, id: &UserId) -> String {
    lane.key(format_args!("u:{{{id}}}"))
}

fn lease_key(lane: &Lane, id: &UserId) -> String {
    lane.key(format_args!("l:{{{id}}}"))
}

/// A life as it is given to one value, in milliseconds.
fn jittered(life: Duration) -> u64 {
    let percent = rand::rng().random_range(100 - JITTER_PERCENT..=100 + JITTER_PERCENT);
    (millis(life) * percent / 100).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn leased(id: &UserId, token: Token, (outcome, found): (u8, Option<Vec<u8>>)) -> Leased {
    let found = found.unwrap_or_default();
    match outcome {
        0 => Leased::Granted(token),
        2 => value::decode(id, found).map_or(Leased::Unreadable, Leased::Present),
        _ => Leased::Taken(Other(found)),
    }
}
