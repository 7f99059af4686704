//! Redis: who holds and who waits. It is the only copy there is, as long as it lasts; when it is lost, Postgres opens another
//! epoch.
//!
//! Everything is in one partition, whose keys share the hash tag `{lk00}`; [`KEYS`] and the head of `leases/prelude.lua` say
//! what each holds. Every script names the epoch that its caller has, and does nothing in any other.

mod answer;
mod outcome;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use tidings_redis::{Call, Lane, Redis, Script, Value, Written};
use tokio::time::Instant;

use answer::Answer;
pub use outcome::{Acquire, Activate, Began, Cancel, Claim, Place, Release, Renew, Seen, Swept, View};

use crate::model::{CallId, Epoch, InstanceId, LeaseId, LockName, Wish};

/// The keys of the partition, in the order in which every script has them.
pub const KEYS: [&str; 8] = ["meta", "holds", "queue", "waiters", "due", "requests", "ended", "instances"];
/// Places in queues that one `reread` looks after: it takes well below a millisecond.
pub const REREAD_MAX: usize = 500;

/// A script with what it shares with the others. The flags have to stand in the first line.
macro_rules! script {
    ($flags:literal, $file:literal) => {
        Script::new(concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("leases/prelude.lua"),
            "\n",
            include_str!(concat!("leases/", $file, ".lua"))
        ))
    };
}

/// Why Redis did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis is in another epoch than the one named, or in none: nothing was done.
    #[error("redis is not in this epoch")]
    NoEpoch,
    /// Nothing was done: Redis was away, or did not take it, or did not answer a question.
    #[error(transparent)]
    Redis(#[from] tidings_redis::Error),
    /// What was asked for may have been done, or may be done yet.
    #[error("whether redis did it is not known")]
    Doubtful(#[source] tidings_redis::Error),
    /// It answered something that nobody expects.
    #[error("unexpected answer of a script")]
    Malformed,
}

impl Error {
    /// Whether what was asked for may have been done, or may be done yet.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Self::NoEpoch | Self::Redis(_) => false,
            Self::Doubtful(_) | Self::Malformed => true,
        }
    }
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Waiters of one lock.
    pub queue: usize,
    /// Requests whose hold is over, and that are remembered.
    pub ended: usize,
}

impl Default for Limits {
    /// What the contract promises.
    fn default() -> Self {
        Self { queue: 10_000, ended: 1_000_000 }
    }
}

/// The leases.
#[derive(Clone)]
pub struct Leases {
    redis: Redis,
    limits: Limits,
    /// The keys, and what the channel of an instance begins with, as every lane names them.
    names: OnceLock<([String; KEYS.len()], String)>,
    acquire: Script,
    claim: Script,
    cancel: Script,
    release: Script,
    renew: Script,
    sweep: Script,
    reread: Script,
    look: Script,
    epoch: Script,
    activate: Script,
}

impl Leases {
    /// The leases in one Redis.
    pub fn new(redis: Redis, limits: Limits) -> Self {
        Self {
            redis,
            limits,
            names: OnceLock::new(),
            acquire: script!("", "acquire"),
            claim: script!(" flags=allow-oom", "claim"),
            cancel: script!(" flags=allow-oom", "cancel"),
            release: script!(" flags=allow-oom", "release"),
            renew: script!(" flags=allow-oom", "renew"),
            sweep: script!(" flags=allow-oom", "sweep"),
            reread: script!(" flags=allow-oom", "reread"),
            look: script!(" flags=no-writes", "look"),
            epoch: script!(" flags=no-writes", "epoch"),
            activate: script!(" flags=allow-oom", "activate"),
        }
    }

    /// Acquires a lock for a call, or queues for it; `now` is when this is sent.
    pub async fn acquire(
        &self,
        epoch: Epoch,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        wish: &Wish,
        now: Instant,
    ) -> Result<Acquire, Error> {
        let mut lane = self.redis.writer(wish.name.as_str()).await?;
        let mut asked = self.acquire_call(&lane, epoch, instance, (id, call), wish, now);
        asked.arg(0);
        outcome::acquire(epoch, Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Acquires once more for calls that lost what they had with Redis, in their order. One round trip; if it fails, any of
    /// them may have been done.
    pub async fn acquire_again<'a>(
        &self,
        epoch: Epoch,
        instance: &InstanceId,
        wishes: impl Iterator<Item = (&'a LeaseId, &'a CallId, &'a Wish)>,
        now: Instant,
    ) -> Result<Vec<Acquire>, Error> {
        let mut lane = self.redis.reader().await?;
        let again = |(id, call, wish)| {
            let mut asked = self.acquire_call(&lane, epoch, instance, (id, call), wish, now);
            asked.arg(1);
            asked
        };
        let calls: Vec<_> = wishes.map(again).collect();
        let answers: Vec<Vec<Value>> = done(lane.write_all(&calls).await)?;
        answers.into_iter().map(|answer| outcome::acquire(epoch, Answer::new(answer)?)).collect()
    }

    /// Takes the offer made to a call.
    pub async fn claim(&self, epoch: Epoch, name: &LockName, id: &LeaseId, call: &CallId) -> Result<Claim, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut asked = self.call(&self.claim, &lane, epoch);
        asked.arg(name.as_str()).arg(id.as_str()).arg(call.as_str());
        outcome::claim(epoch, Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Gives up what a call has; what was claimed only if `claimed`. `request` finds what was taken over under another id.
    pub async fn cancel(
        &self,
        epoch: Epoch,
        name: &LockName,
        (id, call): (&LeaseId, &CallId),
        request: &str,
        claimed: bool,
    ) -> Result<Cancel, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut asked = self.call(&self.cancel, &lane, epoch);
        asked.arg(name.as_str()).arg(id.as_str()).arg(call.as_str()).arg(request).arg(u8::from(claimed));
        outcome::cancel(epoch, Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Ends a hold.
    pub async fn release(&self, epoch: Epoch, name: &LockName, id: &LeaseId, seq: i64) -> Result<Release, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut asked = self.call(&self.release, &lane, epoch);
        asked.arg(name.as_str()).arg(id.as_str()).arg(seq);
        outcome::release(&Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Lets a lease last its whole time again.
    pub async fn renew(&self, epoch: Epoch, name: &LockName, id: &LeaseId, seq: i64) -> Result<Renew, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut asked = self.call(&self.renew, &lane, epoch);
        asked.arg(name.as_str()).arg(id.as_str()).arg(seq);
        outcome::renew(Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Ends at most `limit` things that are over, and says that an instance lives.
    pub async fn sweep(&self, epoch: Epoch, instance: &InstanceId, limit: usize) -> Result<Swept, Error> {
        let mut lane = self.redis.reader().await?;
        let mut asked = self.call(&self.sweep, &lane, epoch);
        asked.arg(instance.as_str()).arg(limit);
        outcome::swept(Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Looks after at most [`REREAD_MAX`] places in queues; tells of each, in their order.
    pub async fn reread<'a>(
        &self,
        epoch: Epoch,
        instance: &InstanceId,
        places: impl Iterator<Item = (&'a LockName, &'a LeaseId, &'a CallId)>,
    ) -> Result<Vec<Place>, Error> {
        let mut lane = self.redis.reader().await?;
        let mut asked = self.call(&self.reread, &lane, epoch);
        asked.arg(instance.as_str());
        for (name, id, call) in places {
            asked.arg(name.as_str()).arg(id.as_str()).arg(call.as_str());
        }
        outcome::places(Answer::new(done(lane.write(&asked).await)?)?)
    }

    /// Looks at a lock and at the first `limit` of its waiters.
    pub async fn look(&self, epoch: Epoch, name: &LockName, limit: usize) -> Result<View, Error> {
        let mut lane = self.redis.reader().await?;
        let mut asked = self.call(&self.look, &lane, epoch);
        asked.arg(name.as_str()).arg(limit);
        outcome::view(epoch, Answer::new(lane.read(&asked).await?)?)
    }

    /// Says in which epoch and in which reign this Redis is, whoever asks.
    pub async fn epoch(&self) -> Result<Seen, Error> {
        let mut lane = self.redis.reader().await?;
        let asked = self.call(&self.epoch, &lane, Epoch::new(0));
        outcome::seen(lane.read(&asked).await?)
    }

    /// Begins an epoch that Postgres knows already, with a quarantine.
    pub async fn activate(&self, epoch: Epoch, reign: &str, quarantine: Duration) -> Result<Activate, Error> {
        let mut lane = self.redis.reader().await?;
        let mut asked = self.call(&self.activate, &lane, epoch);
        asked.arg(reign).arg(millis(quarantine));
        outcome::activate(&Answer::new(done(lane.write(&asked).await)?)?)
    }

    fn acquire_call(
        &self,
        lane: &Lane,
        epoch: Epoch,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        wish: &Wish,
        now: Instant,
    ) -> Call<'_> {
        // A call whose time is up will leave the queue itself: what is left of its wait is never nothing.
        let wait = wish.until.map_or(0, |until| millis(until - now).max(1));
        let (request, fingerprint) =
            wish.request.as_ref().map_or(("", &[][..]), |request| (&request.id, &request.fingerprint[..]));
        let mut asked = self.call(&self.acquire, lane, epoch);
        asked.arg(wish.name.as_str()).arg(id.as_str()).arg(call.as_str()).arg(instance.as_str()).arg(&wish.owner);
        asked.arg(millis(wish.ttl)).arg(wait).arg(millis(now - wish.arrived));
        asked.arg(request).arg(fingerprint).arg(self.limits.queue);
        asked
    }

    /// What every call has.
    fn call<'a>(&self, script: &'a Script, lane: &Lane, epoch: Epoch) -> Call<'a> {
        let names = || (KEYS.map(|key| lane.key(format_args!("{{lk00}}:{key}"))), lane.channel(format_args!("n:")));
        let (keys, news) = self.names.get_or_init(names);
        let mut call = script.prepare_invoke();
        call.key(keys).arg(epoch.get()).arg(news).arg(self.limits.ended);
        call
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("redis", &self.redis).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The answer to a write.
fn done<T>(written: Written<T>) -> Result<T, Error> {
    match written {
        Written::Done(answer) => Ok(answer),
        Written::NotDone(error) => Err(Error::Redis(error)),
        Written::Doubtful(error) => Err(Error::Doubtful(error)),
    }
}

/// The channel on which an instance hears of its calls, without the prefix of the service.
pub fn channel(instance: &InstanceId) -> String {
    format!("n:{}", instance.as_str())
}

/// What an instance hears of one of its calls; may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether it was made an offer; else a repeat took its place.
    pub offered: bool,
    /// The call.
    pub call: CallId,
    /// Its place in the queue.
    pub id: LeaseId,
    /// The lock.
    pub name: LockName,
}

impl News {
    /// Reads what a script published: `offer` or `taken`, call, id and name.
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(message).ok()?.splitn(4, ' ').map(str::to_owned);
        let offered = words.next()? == "offer";
        let (call, id, name) = (words.next()?, words.next()?, words.next()?);
        Some(Self { offered, call: CallId::new(call), id: LeaseId::new(id), name: LockName::new(name) })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
