//! The pub/sub sessions of this instance: subscribes to channels with subscribers, and unsubscribes
//! from idle ones.
//!
//! A channel is absent, joining, live or leaving. It joins with its first subscriber. It is live
//! when Redis has confirmed the subscription and has then reported the channel's head. It leaves
//! when it had no subscriber for the linger time. One task performs all of these steps, one after
//! the other. A subscriber that arrives while its channel leaves gets a new feed, which joins next,
//! so it never relies on a subscription that is about to end. In a new session all channels join
//! again, and the heads show what was missed in between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings_redis::{Session, Subscriber};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Hub;
use crate::channels::{CHANNELS_MAX, Error, pubsub_channel};
use crate::model::ChannelName;

/// Pause before the heads are read again, after a read that failed.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Checks for idle channels per linger time: a channel lingers at most 1/8 longer.
const IDLE_CHECKS: u32 = 8;
/// Shortest interval between two checks for idle channels.
const IDLE_CHECK_MIN: Duration = Duration::from_millis(5);

impl Hub {
    /// Keeps the channels subscribed in one session after another; runs until it is dropped.
    pub async fn run_pubsub(&self, subscriber: Subscriber) {
        let mut sessions = subscriber.sessions();
        let mut was_connected = false;
        loop {
            let session = sessions.borrow_and_update().clone();
            was_connected |= session.is_some();
            tokio::select! {
                ended = sessions.changed() => if ended.is_err() { return },
                () = self.run_session(session) => {}
            }
            self.connected.store(false, Ordering::Relaxed);
            // Before the next session delivers notifications.
            if was_connected {
                self.directory.on_disconnect();
            }
        }
    }

    /// Serves a session, or the time without one. The caller drops the future when the session
    /// changes.
    async fn run_session(&self, session: Option<Session>) {
        let Some(mut session) = session else {
            return self.run_without_session().await;
        };
        // An error has ended the session; the subscriber opens the next one.
        if let Err(error) = self.update_subscriptions(&mut session).await {
            tracing::debug!(%error, "cannot subscribe or unsubscribe");
            std::future::pending::<()>().await;
        }
    }

    async fn update_subscriptions(&self, session: &mut Session) -> Result<(), Error> {
        self.join(session, &self.directory.take_all()).await?;
        self.connected.store(true, Ordering::Relaxed);
        let mut idle_checks = interval((self.limits.linger / IDLE_CHECKS).max(IDLE_CHECK_MIN));
        idle_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.directory.wait_joining() => self.join(session, &self.directory.take_joining()).await?,
                _ = idle_checks.tick() => {
                    session.unsubscribe(&pubsub_channels(&self.directory.take_idle(self.limits.linger))).await?;
                }
            }
        }
    }

    /// Removes idle feeds while there is no session.
    async fn run_without_session(&self) {
        let mut idle_checks = interval((self.limits.linger / IDLE_CHECKS).max(IDLE_CHECK_MIN));
        loop {
            idle_checks.tick().await;
            self.directory.take_idle(self.limits.linger);
        }
    }

    /// Subscribes to channels, reads their heads after the confirmation, and makes their feeds
    /// live.
    async fn join(&self, session: &mut Session, channels: &[ChannelName]) -> Result<(), Error> {
        for channels in channels.chunks(CHANNELS_MAX) {
            session.subscribe(&pubsub_channels(channels)).await?;
            let heads = loop {
                match self.heads(channels).await {
                    Ok(heads) => break heads,
                    Err(error) => tracing::debug!(%error, "cannot read the heads of channels yet"),
                }
                sleep(RETRY_DELAY).await;
            };
            for (channel, head) in heads {
                if let Some(feed) = self.directory.get(channel.as_str()) {
                    self.perform(&feed, feed.go_live(head));
                }
            }
        }
        Ok(())
    }
}

fn pubsub_channels(channels: &[ChannelName]) -> Vec<String> {
    channels.iter().map(pubsub_channel).collect()
}
