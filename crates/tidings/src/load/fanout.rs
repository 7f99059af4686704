//! Calls that end when several others have heard of them: a message is stamped, and everybody who gets it says so.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use super::{Fault, Turn};

/// Bytes at the beginning of a message that are stamped.
const STAMP: usize = 16;

/// Who has what was published.
#[derive(Debug)]
pub struct Fanout {
    /// One a caller, who has one message under way at a time.
    places: Vec<Place>,
    /// Why a subscription ended, if one did: from then on nobody can have everything.
    broken: watch::Sender<Option<Fault>>,
    subscribers: u32,
}

/// The message that a caller has under way.
#[derive(Debug, Default)]
struct Place {
    number: AtomicU64,
    /// How many have not got it yet.
    missing: AtomicU32,
    whole: Notify,
}

impl Fanout {
    /// For so many callers, each of whose messages so many subscribers get.
    pub fn new(callers: usize, subscribers: u32) -> Self {
        let places = (0..callers).map(|_| Place::default()).collect();
        Self { places, broken: watch::Sender::new(None), subscribers }
    }

    /// Publishes by `publish`, which is given the message: `data`, of at least 16 bytes, with a stamp on the first of them.
    /// Returns how many have it when the last has it.
    ///
    /// # Errors
    /// That of `publish`, or a subscription has ended. It waits for ever if a message is lost: give it a limit.
    pub async fn deliver<F>(
        &self,
        turn: Turn,
        mut data: Vec<u8>,
        publish: impl FnOnce(Vec<u8>) -> F,
    ) -> Result<u64, Fault>
    where
        F: Future<Output = Result<(), Fault>>,
    {
        let place = &self.places[turn.caller];
        place.missing.store(self.subscribers, Ordering::Relaxed);
        place.number.store(turn.number, Ordering::Release);
        let whole = place.whole.notified();
        data[..8].copy_from_slice(&turn.number.to_le_bytes());
        data[8..STAMP].copy_from_slice(&(turn.caller as u64).to_le_bytes());
        publish(data).await?;
        tokio::select! {
            () = whole => Ok(self.subscribers.into()),
            fault = self.broke() => Err(fault),
        }
    }

    /// A subscriber has got a message.
    pub fn got(&self, data: &[u8]) {
        let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let (Some(number), Some(caller)) = (number(data.get(..8)), number(data.get(8..STAMP))) else { return };
        let Some(place) = usize::try_from(caller).ok().and_then(|caller| self.places.get(caller)) else { return };
        // Nobody waits any more for what came after its caller gave up.
        if place.number.load(Ordering::Acquire) == number && place.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            place.whole.notify_waiters();
        }
    }

    /// A subscription has ended.
    pub fn broken(&self, fault: Fault) {
        self.broken.send_replace(Some(fault));
    }

    async fn broke(&self) -> Fault {
        let mut broken = self.broken.subscribe();
        let fault = broken.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
        fault.unwrap_or_else(|| Fault::answer("the subscriptions have ended"))
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const TURN: Turn = Turn { number: 7, caller: 1 };

    #[tokio::test(start_paused = true)]
    async fn a_message_is_delivered_when_the_last_of_its_subscribers_has_it() {
        let fanout = Fanout::new(2, 3);
        let deliver = async |times: u32| {
            let publish = |data: Vec<u8>| {
                (0..times).for_each(|_| fanout.got(&data));
                fanout.got(&[0; 32]); // of another caller
                ready(Ok(()))
            };
            let delivered = fanout.deliver(TURN, vec![0; 20], publish);
            tokio::time::timeout(std::time::Duration::from_secs(1), delivered).await.ok()
        };

        assert_eq!(deliver(2).await, None);
        assert_eq!(deliver(3).await, Some(Ok(3)));
    }

    #[tokio::test]
    async fn a_subscription_that_ends_is_told_to_those_who_wait() {
        let fanout = Fanout::new(2, 1);
        fanout.broken(Fault::answer("GAP"));

        assert_eq!(fanout.deliver(TURN, vec![0; 16], |_| ready(Ok(()))).await, Err(Fault::answer("GAP")));
    }
}
