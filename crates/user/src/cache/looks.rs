//! Looks into Redis, many in one question: whoever comes while a question is under way goes with the next one.
//!
//! One key a question costs Redis and us more in system calls and wake-ups than in work. Nobody waits for company that is not
//! there: whoever is alone asks at once. Where the last question was for several, whatever else can run now has a chance to look,
//! too, before the next is asked. With more than one question under way they would be smaller, which costs more than it gains.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_redis::{Redis, cmd};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;

use super::{Error, value_key};
use crate::model::UserId;

/// Looks in one question: as many of the largest profiles are told within a time-out.
const LOOKS_MAX: usize = 128;
/// Looks that wait to be asked; more wait in their callers.
const QUEUE: usize = 1024;

/// What was found, and the reign that answered.
pub(super) type Found = (Option<Vec<u8>>, Arc<str>);

/// The same of several, in their order.
pub(super) type AllFound = (Vec<Option<Vec<u8>>>, Arc<str>);

/// The way to look.
#[derive(Debug)]
pub(super) struct Looks {
    asking: Arc<Asking>,
    queue: mpsc::Sender<Look>,
}

/// The one question under way.
#[derive(Debug)]
struct Asking {
    redis: Redis,
    turn: Semaphore,
    /// Whether the last question was for several.
    crowded: AtomicBool,
}

/// A look that waits for the next question.
struct Look {
    id: UserId,
    answer: oneshot::Sender<Result<Found, Error>>,
}

impl Looks {
    /// Begins to ask, for as long as this lives.
    pub(super) fn new(redis: Redis) -> Self {
        let asking = Arc::new(Asking { redis, turn: Semaphore::new(1), crowded: AtomicBool::new(false) });
        let (queue, looks) = mpsc::channel(QUEUE);
        tokio::spawn(ask_all(Arc::clone(&asking), looks));
        Self { asking, queue }
    }

    /// What is under the key of a user.
    pub(super) async fn look(&self, id: &UserId) -> Result<Found, Error> {
        let Asking { redis, turn, crowded } = &*self.asking;
        if !crowded.load(Ordering::Relaxed)
            && let Ok(_turn) = turn.try_acquire()
        {
            let (mut values, reign) = ask(redis, [id]).await?;
            return Ok((values.pop().flatten(), reign));
        }
        let (answer, answered) = oneshot::channel();
        let look = Look { id: id.clone(), answer };
        self.queue.send(look).await.map_err(|_| Error::Away)?;
        answered.await.map_err(|_| Error::Away)?
    }
}

/// Asks for whatever has gathered, one question after the other.
async fn ask_all(asking: Arc<Asking>, mut queue: mpsc::Receiver<Look>) {
    let Asking { redis, turn, crowded } = &*asking;
    let mut looks = Vec::new();
    while queue.recv_many(&mut looks, LOOKS_MAX).await > 0 {
        if crowded.load(Ordering::Relaxed) {
            yield_now().await;
        }
        let Ok(_turn) = turn.acquire().await else { return };
        while looks.len() < LOOKS_MAX
            && let Ok(look) = queue.try_recv()
        {
            looks.push(look);
        }
        crowded.store(looks.len() > 1, Ordering::Relaxed);
        tell(ask(redis, looks.iter().map(|look| &look.id)).await, take(&mut looks));
    }
}

/// Tells everybody what was answered.
fn tell(answer: Result<AllFound, Error>, looks: Vec<Look>) {
    match answer {
        Ok((values, reign)) => {
            for (look, value) in looks.into_iter().zip(values) {
                let _ = look.answer.send(Ok((value, Arc::clone(&reign))));
            }
        }
        Err(error) => {
            for look in looks {
                let _ = look.answer.send(Err(error.clone()));
            }
        }
    }
}

/// One question. One round trip.
pub(super) async fn ask(redis: &Redis, ids: impl IntoIterator<Item = &UserId>) -> Result<AllFound, Error> {
    let mut lane = redis.reader().await?;
    let mut command = cmd("MGET");
    for id in ids {
        command.arg(value_key(&lane, id));
    }
    let values = lane.send(&command).await?;
    Ok((values, Arc::clone(lane.reign())))
}
