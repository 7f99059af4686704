//! Looks into Redis, many in one question: whoever comes while a question is under way goes with the next one.
//!
//! One key a question costs Redis and us more in system calls and wake-ups than in work. Nobody waits for company: where
//! nothing is under way, a look is a question of its own.

use std::mem::take;
use std::sync::Arc;

use tidings_redis::{Redis, cmd};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Error, value_key};
use crate::model::UserId;

/// Questions under way at once: with more they would be smaller, which costs more than they gain.
const QUESTIONS: usize = 1;
/// Looks in one question: as many of the largest profiles are told within a time-out.
const LOOKS_MAX: usize = 128;
/// Looks that wait to be asked; more wait in their callers.
const QUEUE: usize = 1024;

/// What was found, and the reign that answered.
pub(super) type Found = (Option<Vec<u8>>, Arc<str>);

/// The way to look.
#[derive(Debug)]
pub(super) struct Looks {
    redis: Redis,
    questions: Arc<Semaphore>,
    queue: mpsc::Sender<Look>,
}

/// A look that waits for the next question.
struct Look {
    id: UserId,
    answer: oneshot::Sender<Result<Found, Error>>,
}

impl Looks {
    /// Begins to ask, for as long as this lives.
    pub(super) fn new(redis: Redis) -> Self {
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        let (queue, looks) = mpsc::channel(QUEUE);
        tokio::spawn(ask_all(redis.clone(), Arc::clone(&questions), looks));
        Self { redis, questions, queue }
    }

    /// What is under the key of a user.
    pub(super) async fn look(&self, id: &UserId) -> Result<Found, Error> {
        if let Ok(_question) = self.questions.try_acquire() {
            let (mut values, reign) = ask(&self.redis, [id]).await?;
            return Ok((values.pop().flatten(), reign));
        }
        let (answer, answered) = oneshot::channel();
        let look = Look { id: id.clone(), answer };
        self.queue.send(look).await.map_err(|_| Error::Away)?;
        answered.await.map_err(|_| Error::Away)?
    }
}

/// Asks for whatever has gathered, as soon as a question may be asked.
async fn ask_all(redis: Redis, questions: Arc<Semaphore>, mut queue: mpsc::Receiver<Look>) {
    let mut looks = Vec::new();
    while queue.recv_many(&mut looks, LOOKS_MAX).await > 0 {
        let Ok(_question) = questions.acquire().await else { return };
        while looks.len() < LOOKS_MAX
            && let Ok(look) = queue.try_recv()
        {
            looks.push(look);
        }
        tell(ask(&redis, looks.iter().map(|look| &look.id)).await, take(&mut looks));
    }
}

/// Tells everybody what was answered.
fn tell(answer: Result<(Vec<Option<Vec<u8>>>, Arc<str>), Error>, looks: Vec<Look>) {
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
pub(super) async fn ask(
    redis: &Redis,
    ids: impl IntoIterator<Item = &UserId>,
) -> Result<(Vec<Option<Vec<u8>>>, Arc<str>), Error> {
    let mut lane = redis.reader().await?;
    let mut command = cmd("MGET");
    for id in ids {
        command.arg(value_key(&lane, id));
    }
    let values = lane.send(&command).await?;
    Ok((values, Arc::clone(lane.reign())))
}
