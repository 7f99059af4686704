//! What is counted, beside what the server and Redis count of themselves. The handles are looked up once.

use std::fmt;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::hub::Size;
use crate::model::{Frame, Published};

/// The numbers of the service.
pub(crate) struct Numbers {
    new: Counter,
    repeated: Counter,
    refused: Counter,
    delivered: Counter,
    frames: Counter,
    gaps: Counter,
    missed: Counter,
    resets: Counter,
    /// Rings that missed something, and were filled from Redis.
    pub(crate) fills: Counter,
    streams: Gauge,
    channels: Gauge,
    rings_bytes: Gauge,
}

impl Numbers {
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

    /// A message was published, or not.
    pub(crate) fn published(&self, outcome: &Published) {
        match outcome {
            Published::Done { deduplicated: false, .. } => self.new.increment(1),
            Published::Done { deduplicated: true, .. } => self.repeated.increment(1),
            Published::Reused { .. } => self.refused.increment(1),
        }
    }

    /// A subscriber is told something: what it gets, and what could not be delivered to it.
    pub(crate) fn told(&self, frame: &Frame) {
        self.frames.increment(1);
        match frame {
            Frame::Messages(messages) => self.delivered.increment(messages.len() as u64),
            Frame::Gap { first, last, .. } => {
                self.gaps.increment(1);
                self.missed.increment(u64::try_from(last - first + 1).unwrap_or_default());
            }
            Frame::Reset { .. } => self.resets.increment(1),
            Frame::CaughtUp { .. } | Frame::Heartbeat { .. } | Frame::Goodbye { .. } => {}
        }
    }

    /// There is so much to the hub.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn size(&self, size: Size) {
        self.streams.set(size.streams as f64);
        self.channels.set(size.channels as f64);
        self.rings_bytes.set(size.rings_bytes as f64);
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

fn describe() {
    describe_counter!(
        "tidings_broadcast_published_messages_total",
        "Messages that were published: new, repeated (an earlier publish had done it), refused (the request id is another's)."
    );
    describe_counter!(
        "tidings_broadcast_delivered_messages_total",
        "Messages that were delivered, once for each subscriber."
    );
    describe_counter!("tidings_broadcast_delivered_frames_total", "Frames that subscribers got, of whatever kind.");
    describe_counter!("tidings_broadcast_gaps_total", "Gaps that subscribers were told of.");
    describe_counter!(
        "tidings_broadcast_missed_messages_total",
        "Messages in these gaps, once for each subscriber: they are not kept any more."
    );
    describe_counter!("tidings_broadcast_resets_total", "Resets that subscribers were told of: Redis lost a channel.");
    describe_counter!(
        "tidings_broadcast_ring_fills_total",
        "Times that a channel in memory missed something and got it from Redis."
    );
    describe_gauge!("tidings_broadcast_streams", "Subscriptions of this instance.");
    describe_gauge!("tidings_broadcast_channels", "Channels that this instance hears.");
    describe_gauge!(
        "tidings_broadcast_rings_bytes",
        Unit::Bytes,
        "Memory that the newest messages of these channels take."
    );
}
