//! The use cases and their order of steps.
//!
//! Publish: one script in Redis numbers the message, keeps it and tells everybody who listens. Subscribe: the hub sits
//! down at the channels, reads where they stand, and goes on from there. That nothing is lost in silence rests on these
//! invariants, of which the [`hub`](crate::hub) holds most (B1 to B7); in addition:
//! - **B8** one epoch gives each offset once: the script numbers and keeps a message in one step, and continues only
//!   what was written in the present reign of the server (`channels/publish.lua`);
//! - **B9** a page is read together with its epoch and its reign (`channels/read.lua`): what another reign left is
//!   never delivered;
//! - **B10** an acknowledged publish is published once: nothing resends it without its request id.
//!
//! A publish is one step in Redis, done or not done: a caller that goes away leaves nothing half done, so it is not
//! brought to its end in a task of its own.

mod error;

use std::sync::Arc;

use futures_util::{Stream, stream};
use tidings_redis::{Subscriber, Written};

pub use error::Error;

use crate::channels::Channels;
use crate::hub::{Ending, Hub, Subscription};
use crate::model::{ChannelName, Epoch, Frame, NewMessage, Published, Stand, Wish};

/// The place of a published message; the boolean says whether an earlier publish had done it.
pub type Place = (Epoch, i64, bool);

/// The channels and who listens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broadcasts {
    channels: Arc<Channels>,
    hub: Arc<Hub>,
}

impl Broadcasts {
    /// The channels of one Redis, heard by one hub.
    pub fn new(channels: Arc<Channels>, hub: Arc<Hub>) -> Self {
        Self { channels, hub }
    }

    /// Publishes messages to any channels, those of one channel in the order given; what becomes of each is told in
    /// their order.
    pub async fn publish(&self, messages: &[NewMessage]) -> Result<Vec<Result<Place, Error>>, Error> {
        let _turn = self.channels.turn(messages).await.ok_or(Error::Crowded)?;
        let outcomes = match self.channels.publish(messages).await {
            Written::Done(outcomes) if outcomes.len() == messages.len() => outcomes,
            Written::Done(_) => return Err(Error::Miscounted),
            Written::NotDone(error) => return Err(Error::Unpublished(error)),
            Written::Doubtful(error) => return Err(Error::Doubtful(error)),
        };
        for outcome in &outcomes {
            self.hub.numbers().published(outcome);
        }
        Ok(outcomes.into_iter().map(said).collect())
    }

    /// Publishes one message.
    pub async fn publish_one(&self, message: NewMessage) -> Result<Place, Error> {
        self.publish(&[message]).await?.pop().unwrap_or(Err(Error::Miscounted))
    }

    /// Subscribes: from the return on, all that is published is delivered, or said to be missing.
    pub async fn subscribe(
        &self,
        wishes: &[Wish],
        ending: Ending,
    ) -> Result<impl Stream<Item = Result<Frame, Error>> + Send + use<>, Error> {
        let subscription = self.hub.subscribe(wishes, ending).await?;
        Ok(stream::unfold(subscription, async |mut subscription: Subscription| {
            let frame = subscription.next().await?;
            Some((frame.map_err(Error::from), subscription))
        }))
    }

    /// Says where a channel stands, and how many streams of this instance subscribe to it.
    pub async fn get(&self, channel: &ChannelName) -> Result<(Stand, usize), Error> {
        let stands = self.channels.stands([channel].into_iter()).await?;
        let stand = stands.first().copied().ok_or(Error::Miscounted)?;
        Ok((stand, self.hub.subscribers(channel)))
    }

    /// Takes what was heard on a pub/sub channel; never blocks.
    pub fn hear(&self, ear: &str, told: Vec<u8>) {
        self.hub.hear(ear, told);
    }

    /// Joins and leaves channels, for ever.
    pub async fn attend(&self, subscriber: Subscriber) {
        self.hub.attend(subscriber).await;
    }

    /// Fills rings that have missed something, for ever.
    pub async fn repair(&self) {
        self.hub.repair().await;
    }

    /// Compares every ring with Redis.
    pub async fn compare(&self) -> Result<(), Error> {
        Ok(self.hub.compare().await?)
    }

    /// Whether what is published is heard although it can be: not if Redis answers and the hub hears nothing.
    pub async fn is_deaf(&self) -> bool {
        !self.hub.hears() && self.channels.answers().await
    }

    /// Counts how much there is to it.
    pub fn measure(&self) {
        self.hub.numbers().size(self.hub.size());
    }
}

/// What became of one publish, in the words of the service.
fn said(outcome: Published) -> Result<Place, Error> {
    match outcome {
        Published::Done { epoch, offset, deduplicated } => Ok((epoch, offset, deduplicated)),
        Published::Reused { epoch, offset } => Err(Error::Reused { epoch, offset }),
    }
}
