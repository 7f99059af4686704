//! Subscriptions that resume across broken streams.
//!
//! This module opens and reads streams, and reopens them at another instance. `resume_state` tracks
//! the position of each channel and detects duplicates and gaps.

mod resume_state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::goodbye::Reason;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{Goodbye, Message, Position, SubscribeRequest, SubscribeResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::ReusableBoxFuture;
use tonic::{Request, Status, Streaming};

use self::resume_state::{Delivery, ResumeState};
pub use self::resume_state::{Event, Start};
use crate::attempt::is_retryable;
use crate::attempt_failure::AttemptFailure;
use crate::backoff::Backoff;
use crate::caller::whole_millis;
use crate::channel_pools::{CallClass, ChannelSlot};
use crate::endpoints::{Endpoint, Endpoints};
use crate::error::Error;

/// Time without a frame after which a stream counts as dead. An idle instance sends a heartbeat
/// every 25 s, and one of them may be late.
const SILENCE: Duration = Duration::from_mins(1);
/// Timeout of opening a stream: longer than keep-alive needs to detect a dead connection.
const OPENING: Duration = Duration::from_secs(10);

/// A subscription to channels that delivers each message once and in order, across broken streams.
///
/// A stream that fails, is silent for 60 s or ends with a Goodbye is reopened at another instance,
/// after the event that [`next`](Self::next) returned last. Duplicates are dropped. Missing
/// messages become an [`Event::Gap`] or [`Event::Reset`] in their place, even if no instance
/// reported them.
///
/// It buffers one frame. A slow reader slows down the stream instead of using memory. It gets a gap
/// if it falls behind by more than the service keeps.
#[derive(Debug)]
pub struct Subscription {
    endpoints: Endpoints,
    channels: BTreeMap<String, ResumeState>,
    patience: Option<Duration>,
    /// Instance of the current or next stream.
    endpoint: Arc<Endpoint>,
    stream: Option<OpenStream>,
    /// The stream being opened, kept so that a cancelled `next` does not open it again.
    opening: Option<ReusableBoxFuture<'static, OpenResult>>,
    /// Time of the last frame, or of the opening.
    last_frame_at: Instant,
    /// Event to process before `unread`.
    pending: Option<Event>,
    /// Remaining messages of the last frame.
    unread: vec::IntoIter<Message>,
    outage: Option<StreamOutage>,
}

type OpenResult = Result<OpenStream, Status>;

/// A stream, and the connection on which it has a place.
#[derive(Debug)]
struct OpenStream {
    frames: Streaming<SubscribeResponse>,
    _slot: ChannelSlot,
}

/// An outage: from the failure of a stream to the first frame of another one.
#[derive(Debug)]
struct StreamOutage {
    begin: Instant,
    attempts: u32,
    backoff: Backoff,
    /// Time of the next attempt.
    next_attempt: Instant,
}

impl StreamOutage {
    /// Starts an outage whose first attempt is due now.
    fn begin() -> Self {
        let now = Instant::now();
        Self { begin: now, attempts: 0, backoff: Backoff::new(), next_attempt: now }
    }
}

impl Subscription {
    /// Subscribes to channels, each at most once. The first [`next`](Self::next) connects.
    ///
    /// With [`Start::latest`], nothing is missed after the first `CaughtUp` of the channel.
    pub fn open(endpoints: &Endpoints, starts: Vec<Start>) -> Self {
        Self {
            channels: starts.into_iter().map(|start| (start.channel().to_owned(), ResumeState::new(start))).collect(),
            patience: None,
            endpoint: endpoints.pick(),
            endpoints: endpoints.clone(),
            stream: None,
            opening: None,
            last_frame_at: Instant::now(),
            pending: None,
            unread: Vec::new().into_iter(),
            outage: None,
        }
    }

    /// Sets the longest outage before [`next`](Self::next) gives up; without it, it never does.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Returns the position of a channel after its events returned so far; `None` before the first
    /// one.
    ///
    /// Another subscription can resume there ([`Start::after`]).
    pub fn position(&self, channel: &str) -> Option<&Position> {
        self.channels.get(channel)?.position()
    }

    /// Waits for the next event. Cancel-safe: dropping the future loses no event.
    ///
    /// # Errors
    /// [`Error::Refused`] if the service refuses the subscription, [`Error::GaveUp`] if the
    /// patience is exhausted. The next call tries again from the same position.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let Some(event) = self.pending.take().or_else(|| self.unread.next().map(Event::Message)) else {
                self.read().await?;
                continue;
            };
            let delivery = match self.channels.get_mut(event.channel()) {
                Some(resume_state) => resume_state.accept(event),
                None => Delivery::ProtocolViolation("protocol violation: frame of a channel that was not requested"),
            };
            match delivery {
                Delivery::Next(event) => return Ok(event),
                Delivery::UnreportedGap { gap, event } => {
                    self.pending = Some(event);
                    return Ok(gap);
                }
                Delivery::Duplicate => {}
                // A new stream from the same position lets an instance send the right frames.
                Delivery::ProtocolViolation(problem) => self.stream_failed(&Status::unavailable(problem))?,
            }
        }
    }

    /// Reads a frame, or opens the stream if there is none.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        match timeout_at(self.last_frame_at + SILENCE, stream.frames.message()).await {
            Ok(Ok(Some(SubscribeResponse { frame: Some(Frame::Goodbye(goodbye)) }))) => self.on_goodbye(&goodbye),
            Ok(Ok(Some(SubscribeResponse { frame }))) => {
                self.accept_frame(frame);
                Ok(())
            }
            Ok(Ok(None)) => self.stream_failed(&Status::unavailable("stream ended without a Goodbye")),
            Ok(Err(status)) => self.stream_failed(&status),
            Err(_) => self.stream_failed(&Status::deadline_exceeded("no frame received for 60s")),
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if let Some(outage) = &self.outage {
            sleep_until(outage.next_attempt).await;
        }
        let (channels, endpoint) = (&self.channels, &self.endpoint);
        let opening = self.opening.get_or_insert_with(|| {
            let mut request =
                Request::new(SubscribeRequest { channels: channels.values().map(ResumeState::start).collect() });
            endpoint.authorize(&mut request);
            ReusableBoxFuture::new(open_stream(endpoint.channel_for(CallClass::Streaming), request))
        });
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                self.last_frame_at = Instant::now();
                Ok(())
            }
            Err(status) => self.stream_failed(&status),
        }
    }

    fn accept_frame(&mut self, frame: Option<Frame>) {
        match frame {
            Some(Frame::Messages(frame)) => self.unread = frame.messages.into_iter(),
            Some(Frame::CaughtUp(caught_up)) => self.pending = Some(Event::CaughtUp(caught_up)),
            Some(Frame::Gap(gap)) => self.pending = Some(Event::Gap(gap)),
            Some(Frame::Reset(reset)) => self.pending = Some(Event::Reset(reset)),
            Some(Frame::Heartbeat(_) | Frame::Goodbye(_)) | None => {} // the stream is alive
        }
        self.last_frame_at = Instant::now();
        self.endpoint.record_success();
        self.outage = None;
    }

    /// Handles the end of a stream: moves to another instance at once, or retries later without
    /// one. If only the connection ends, opens the next stream at the same instance.
    fn on_goodbye(&mut self, goodbye: &Goodbye) -> Result<(), Error> {
        if goodbye.reason() == Reason::ConnectionAge && self.outage.is_none() {
            self.outage = Some(StreamOutage::begin());
            self.drop_stream();
            return Ok(());
        }
        let retry_after = goodbye.retry_after.and_then(|time| time.try_into().ok());
        self.endpoint.eject_for(retry_after);
        let other = self.endpoints.pick_other_than(Some(&self.endpoint));
        if self.outage.is_some() || Arc::ptr_eq(&other, &self.endpoint) {
            return self.schedule_retry(&Status::unavailable("the instance is draining"), retry_after);
        }
        self.outage = Some(StreamOutage::begin());
        self.endpoint = other;
        self.drop_stream();
        Ok(())
    }

    /// Handles a stream that failed or could not be opened.
    fn stream_failed(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        self.endpoint.record_failure(&failure);
        if is_retryable(&failure) {
            return self.schedule_retry(status, failure.retry_after);
        }
        self.drop_stream();
        let address = self.endpoint.address().clone();
        Err(Error::Refused { method: "Subscribe", address, failure: Box::new(failure) })
    }

    /// Prepares another attempt at another instance, if any.
    fn schedule_retry(&mut self, status: &Status, retry_after: Option<Duration>) -> Result<(), Error> {
        let outage = self.outage.get_or_insert_with(StreamOutage::begin);
        outage.attempts += 1;
        outage.next_attempt = Instant::now() + outage.backoff.pause(retry_after);
        let (attempts, elapsed) = (outage.attempts, outage.begin.elapsed());
        let too_long = self.patience.is_some_and(|patience| outage.next_attempt - outage.begin > patience);
        let last = Box::new(AttemptFailure::new(status, self.endpoint.address()));
        self.endpoint = self.endpoints.pick_other_than(Some(&self.endpoint));
        self.drop_stream();
        if too_long {
            return Err(Error::GaveUp { method: "Subscribe", last, attempts, elapsed: whole_millis(elapsed) });
        }
        Ok(())
    }

    /// Drops the stream and its unread messages, which the next stream sends again.
    fn drop_stream(&mut self) {
        self.stream = None;
        self.unread = Vec::new().into_iter();
    }
}

async fn open_stream(slot: ChannelSlot, request: Request<SubscribeRequest>) -> OpenResult {
    match timeout(OPENING, BroadcastServiceClient::new(slot.channel()).subscribe(request)).await {
        Ok(opened) => opened.map(|opened| OpenStream { frames: opened.into_inner(), _slot: slot }),
        Err(_) => Err(Status::deadline_exceeded("stream not accepted within 10s")),
    }
}
