//! Metrics of the broadcast service, beside those of the server and of Redis.

use std::fmt;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::model::{HubSize, PublishOutcome, Published, SubscriptionFrame};

/// Handles of the metrics, looked up once.
pub(crate) struct Metrics {
    new: Counter,
    repeated: Counter,
    refused: Counter,
    delivered: Counter,
    frames: Counter,
    gaps: Counter,
    missed: Counter,
    resets: Counter,
    /// Fills of rings that missed messages.
    pub(crate) fills: Counter,
    streams: Gauge,
    channels: Gauge,
    rings_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        let published = |outcome| counter!("tidings_broadcast_published_messages_total", "outcome" => outcome);
        Self {
            new: published("new"),
            repeated: published("repeated"),
            refused: published("refused"),
            delivered: counter!("tidings_broadcast_delivered_messages_total"),
            frames: counter!("tidings_broadcast_delivered_frames_total"),
            gaps: counter!("tidings_broadcast_gaps_total"),
            missed: counter!("tidings_broadcast_missed_messages_total"),
            resets: counter!("tidings_broadcast_resets_total"),
            fills: counter!("tidings_broadcast_ring_fills_total"),
            streams: gauge!("tidings_broadcast_streams"),
            channels: gauge!("tidings_broadcast_channels"),
            rings_bytes: gauge!("tidings_broadcast_rings_bytes"),
        }
    }

    /// Counts one publish by its outcome.
    pub(crate) fn record_publish(&self, outcome: &PublishOutcome) {
        match outcome {
            PublishOutcome::Published(Published { deduplicated: false, .. }) => self.new.increment(1),
            PublishOutcome::Published(Published { deduplicated: true, .. }) => self.repeated.increment(1),
            PublishOutcome::RequestIdReused { .. } => self.refused.increment(1),
        }
    }

    /// Counts one frame sent to a subscriber, with its delivered or missing messages.
    pub(crate) fn record_frame(&self, frame: &SubscriptionFrame) {
        self.frames.increment(1);
        match frame {
            SubscriptionFrame::Messages(messages) => self.delivered.increment(messages.len() as u64),
            SubscriptionFrame::Gap { first, last, .. } => {
                self.gaps.increment(1);
                self.missed.increment(u64::try_from(last - first + 1).unwrap_or_default());
            }
            SubscriptionFrame::Reset { .. } => self.resets.increment(1),
            SubscriptionFrame::CaughtUp { .. }
            | SubscriptionFrame::Heartbeat { .. }
            | SubscriptionFrame::Goodbye(_) => {}
        }
    }

    /// Sets the gauges.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn record_size(&self, size: HubSize) {
        self.streams.set(size.streams as f64);
        self.channels.set(size.channels as f64);
        self.rings_bytes.set(size.rings_bytes as f64);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    describe_counter!(
        "tidings_broadcast_published_messages_total",
        "Publishes by outcome: new, repeated (deduplicated by request id), refused (request id reused)."
    );
    describe_counter!(
        "tidings_broadcast_delivered_messages_total",
        "Messages delivered to subscribers, counted once per subscriber."
    );
    describe_counter!("tidings_broadcast_delivered_frames_total", "Frames sent to subscribers, of all kinds.");
    describe_counter!("tidings_broadcast_gaps_total", "Gap frames sent to subscribers: messages were no longer kept.");
    describe_counter!(
        "tidings_broadcast_missed_messages_total",
        "Messages reported missing in Gap frames, counted once per subscriber."
    );
    describe_counter!(
        "tidings_broadcast_resets_total",
        "Reset frames sent to subscribers: Redis lost the channel, or the start position was unknown."
    );
    describe_counter!(
        "tidings_broadcast_ring_fills_total",
        "Fills of in-memory rings from Redis, after messages were missed on pub/sub."
    );
    describe_gauge!("tidings_broadcast_streams", "Open Subscribe streams of this instance.");
    describe_gauge!(
        "tidings_broadcast_channels",
        "Channels that this instance has subscribed to in Redis, or is about to."
    );
    describe_gauge!(
        "tidings_broadcast_rings_bytes",
        Unit::Bytes,
        "Bytes of messages held in the in-memory rings of all channels."
    );
}
