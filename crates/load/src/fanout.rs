//! Measures deliveries: a call publishes a stamped message and ends when all subscribers have it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::call::{CallFailure, CallSlot};

/// Length of the stamp at the start of a message: call number and caller, 8 bytes each.
const STAMP: usize = 16;

/// The deliveries in flight.
#[derive(Debug)]
pub struct Fanout {
    /// One per caller, each with at most one message in flight.
    pending: Vec<PendingDelivery>,
    /// The failure of a subscription, if one has ended: no later delivery can be complete.
    failure: watch::Sender<Option<CallFailure>>,
    subscribers: u32,
}

/// The message that a caller has in flight.
#[derive(Debug, Default)]
struct PendingDelivery {
    number: AtomicU64,
    /// Subscribers that have not received the message yet.
    missing: AtomicU32,
    complete: Notify,
}

impl Fanout {
    /// Creates a fanout with this many callers; every message goes to all `subscribers`.
    pub fn new(callers: usize, subscribers: u32) -> Self {
        let pending = (0..callers).map(|_| PendingDelivery::default()).collect();
        Self { pending, failure: watch::Sender::new(None), subscribers }
    }

    /// Stamps the first 16 bytes of `data`, passes it to `publish`, and waits until all subscribers
    /// have received it. Returns the number of subscribers.
    ///
    /// Waits indefinitely if a message is lost: callers set a timeout. `data` has at least 16
    /// bytes.
    ///
    /// # Errors
    /// `publish` failed, or a subscription has ended.
    pub async fn deliver<F>(
        &self,
        slot: CallSlot,
        mut data: Vec<u8>,
        publish: impl FnOnce(Vec<u8>) -> F,
    ) -> Result<u64, CallFailure>
    where
        F: Future<Output = Result<(), CallFailure>>,
    {
        let delivery = &self.pending[slot.caller];
        delivery.missing.store(self.subscribers, Ordering::Relaxed);
        delivery.number.store(slot.number, Ordering::Release);
        let complete = delivery.complete.notified();
        data[..8].copy_from_slice(&slot.number.to_le_bytes());
        data[8..STAMP].copy_from_slice(&(slot.caller as u64).to_le_bytes());
        publish(data).await?;
        tokio::select! {
            () = complete => Ok(self.subscribers.into()),
            failure = self.failed() => Err(failure),
        }
    }

    /// Records that a subscriber has received a message.
    pub fn received(&self, data: &[u8]) {
        let number = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let (Some(number), Some(caller)) = (number(data.get(..8)), number(data.get(8..STAMP))) else { return };
        let Some(delivery) = usize::try_from(caller).ok().and_then(|caller| self.pending.get(caller)) else { return };
        // Ignores a message whose caller has timed out and published its next one.
        if delivery.number.load(Ordering::Acquire) == number && delivery.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            delivery.complete.notify_waiters();
        }
    }

    /// Records that a subscription has ended; current and later deliveries fail.
    pub fn fail(&self, failure: CallFailure) {
        self.failure.send_replace(Some(failure));
    }

    async fn failed(&self) -> CallFailure {
        let mut failure = self.failure.subscribe();
        let failure = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        failure.unwrap_or_else(|| CallFailure::unexpected("a subscription has ended"))
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const SLOT: CallSlot = CallSlot { number: 7, caller: 1 };

    #[tokio::test(start_paused = true)]
    async fn a_message_is_delivered_when_the_last_subscriber_has_it() {
        let fanout = Fanout::new(2, 3);
        let deliver = async |times: u32| {
            let publish = |data: Vec<u8>| {
                (0..times).for_each(|_| fanout.received(&data));
                fanout.received(&[0; 32]); // from another caller
                ready(Ok(()))
            };
            let delivered = fanout.deliver(SLOT, vec![0; 20], publish);
            tokio::time::timeout(std::time::Duration::from_secs(1), delivered).await.ok()
        };

        assert_eq!(deliver(2).await, None);
        assert_eq!(deliver(3).await, Some(Ok(3)));
    }

    #[tokio::test]
    async fn a_subscription_that_ends_fails_the_delivery() {
        let fanout = Fanout::new(2, 1);
        fanout.fail(CallFailure::unexpected("GAP"));

        assert_eq!(fanout.deliver(SLOT, vec![0; 16], |_| ready(Ok(()))).await, Err(CallFailure::unexpected("GAP")));
    }
}
