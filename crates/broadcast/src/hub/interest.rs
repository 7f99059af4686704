//! Decides what is heard: owns the pub/sub session, and joins and leaves channels in it.
//!
//! A channel is absent, joining, live or leaving. It joins when somebody wants it, is live when Redis has confirmed the
//! subscription and said where the channel stands after that, and leaves when nobody has wanted it for a while. One
//! task does all of this, a step at a time: whoever wants a channel that leaves gets a feed of its own, which joins
//! next, so that it never relies on a subscription that is about to end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings_redis::{Session, Subscriber};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Hub;
use crate::channels::{CHANNELS_MAX, Error, ear};
use crate::model::ChannelName;

/// How long it waits before it asks again where channels stand, if Redis did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// The looks for idle channels within the time that they linger: that much of it may be added to it.
const LOOKS: u32 = 8;
/// The shortest time between two looks at all channels.
const LOOK_MIN: Duration = Duration::from_millis(5);

impl Hub {
    /// Joins and leaves channels, in one session after the other; runs for ever.
    pub async fn attend(&self, subscriber: Subscriber) {
        let mut sessions = subscriber.sessions();
        let mut has_heard = false;
        loop {
            let session = sessions.borrow_and_update().clone();
            has_heard |= session.is_some();
            tokio::select! {
                ended = sessions.changed() => if ended.is_err() { return },
                () = self.attend_session(session) => {}
            }
            self.hears.store(false, Ordering::Relaxed);
            // Before anything is heard in the next session.
            if has_heard {
                self.directory.was_deaf();
            }
        }
    }

    /// Joins and leaves for as long as the session lasts; dropped when it is over.
    async fn attend_session(&self, session: Option<Session>) {
        let Some(mut session) = session else {
            return self.attend_nothing().await;
        };
        // Whatever failed, the session is over then, and another one will begin.
        if let Err(error) = self.attend_until(&mut session).await {
            tracing::debug!(%error, "could not join or leave");
            std::future::pending::<()>().await;
        }
    }

    async fn attend_until(&self, session: &mut Session) -> Result<(), Error> {
        self.join(session, &self.directory.take_all()).await?;
        self.hears.store(true, Ordering::Relaxed);
        let mut looks = interval((self.limits.linger / LOOKS).max(LOOK_MIN));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.directory.wanted() => self.join(session, &self.directory.take_joining()).await?,
                _ = looks.tick() => session.unsubscribe(&ears(&self.directory.take_idle(self.limits.linger))).await?,
            }
        }
    }

    /// Nothing can be joined: what nobody waits for any more goes.
    async fn attend_nothing(&self) {
        let mut looks = interval((self.limits.linger / LOOKS).max(LOOK_MIN));
        loop {
            looks.tick().await;
            self.directory.take_idle(self.limits.linger);
        }
    }

    /// Subscribes to channels; when that is confirmed, reads where each stands, and lets it begin there.
    async fn join(&self, session: &mut Session, channels: &[ChannelName]) -> Result<(), Error> {
        for channels in channels.chunks(CHANNELS_MAX) {
            session.subscribe(&ears(channels)).await?;
            let heads = loop {
                match self.heads(channels).await {
                    Ok(heads) => break heads,
                    Err(error) => tracing::debug!(%error, "where channels stand is not known yet"),
                }
                sleep(PAUSE).await;
            };
            for (channel, head) in heads {
                if let Some(feed) = self.directory.get(channel.as_str()) {
                    self.see_to(&feed, feed.open(head));
                }
            }
        }
        Ok(())
    }
}

fn ears(channels: &[ChannelName]) -> Vec<String> {
    channels.iter().map(ear).collect()
}
