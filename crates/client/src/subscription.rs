//! Subscriptions that survive the streams they are made of.
//!
//! `place` proves for each channel that nothing is missing; here a stream is opened, read, and opened again wherever an
//! instance answers.

mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{Goodbye, Message, Position, SubscribeRequest, SubscribeResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::ReusableBoxFuture;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

pub use self::place::{Event, Start};
use self::place::{Place, Taken};
use crate::attempt::worth_repeating;
use crate::backoff::Backoff;
use crate::caller::{Error, whole_millis};
use crate::endpoints::{Endpoint, Endpoints};
use crate::refusal::Refusal;

/// Silence after which a stream is dead: an instance that has nothing else to say sends a heartbeat every 25 s, and one of
/// them may be late.
const SILENCE: Duration = Duration::from_mins(1);
/// How long an instance may take to accept a stream: more than it takes to find out that a connection is dead.
const OPENING: Duration = Duration::from_secs(10);

/// Channels, each message of them once and in order, across any number of broken streams.
///
/// A stream that breaks, falls silent or says goodbye is opened again at another instance, behind what
/// [`next`](Self::next) returned last. What comes twice is dropped. What is missing is an [`Event`] in its place, even if no
/// instance told of it.
///
/// It holds one frame at a time. Who reads slowly holds up the stream and not the memory, and hears of a gap if that lasts
/// longer than messages are kept.
#[derive(Debug)]
pub struct Subscription {
    endpoints: Endpoints,
    places: BTreeMap<String, Place>,
    patience: Option<Duration>,
    /// Where the stream is, or will be.
    endpoint: Arc<Endpoint>,
    stream: Option<Streaming<SubscribeResponse>>,
    /// The stream to be. It is kept here, so that who waits only a little at a time does not begin anew each time.
    opening: Option<ReusableBoxFuture<'static, Opened>>,
    /// When it was heard last.
    heard: Instant,
    /// What comes first.
    held: Option<Event>,
    /// What is left of the last frame.
    unread: vec::IntoIter<Message>,
    outage: Option<Outage>,
}

type Opened = Result<Streaming<SubscribeResponse>, Status>;

/// The time since a stream broke after which no other was heard yet.
#[derive(Debug)]
struct Outage {
    begin: Instant,
    attempts: u32,
    backoff: Backoff,
    /// When the next attempt is due.
    retry: Instant,
}

impl Outage {
    /// It begins, and the first attempt is due.
    fn begin() -> Self {
        let now = Instant::now();
        Self { begin: now, attempts: 0, backoff: Backoff::new(), retry: now }
    }
}

impl Subscription {
    /// Subscribes to channels, each once. The first [`next`](Self::next) connects.
    ///
    /// A channel that begins at its latest is subscribed from its first `CaughtUp` on, and from there on nothing is missed.
    pub fn open(endpoints: &Endpoints, starts: Vec<Start>) -> Self {
        Self {
            places: starts.into_iter().map(|start| (start.channel().to_owned(), Place::new(start))).collect(),
            patience: None,
            endpoint: endpoints.pick(),
            endpoints: endpoints.clone(),
            stream: None,
            opening: None,
            heard: Instant::now(),
            held: None,
            unread: Vec::new().into_iter(),
            outage: None,
        }
    }

    /// Gives up when all instances have failed for so long; without it, never.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Where each channel stands: behind what [`next`](Self::next) returned last of it. What has no position yet is left out.
    ///
    /// Another subscription goes on there ([`Start::after`]).
    pub fn positions(&self) -> impl Iterator<Item = (&str, &Position)> {
        self.places.iter().filter_map(|(channel, place)| Some((channel.as_str(), place.position()?)))
    }

    /// Waits for what comes next. May be dropped meanwhile: nothing is lost.
    ///
    /// # Errors
    /// [`Error::Refused`] if the service does not want the subscription; [`Error::GaveUp`] if the patience is at its end.
    /// Called again, it goes on where it was.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let Some(event) = self.held.take().or_else(|| self.unread.next().map(Event::Message)) else {
                self.read().await?;
                continue;
            };
            let taken = match self.places.get_mut(event.channel()) {
                Some(place) => place.take(event),
                None => Taken::Contradiction("it told of a channel that was not asked for"),
            };
            match taken {
                Taken::Told(event) => return Ok(event),
                Taken::Hole { gap, behind } => {
                    self.held = Some(behind);
                    return Ok(gap);
                }
                Taken::Twice => {}
                // Read again from where we are, it says what it did not say, or another instance does.
                Taken::Contradiction(what) => self.broken(&Status::unavailable(what))?,
            }
        }
    }

    /// Reads a frame, or opens the stream if there is none.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        match timeout_at(self.heard + SILENCE, stream.message()).await {
            Ok(Ok(Some(SubscribeResponse { frame: Some(Frame::Goodbye(goodbye)) }))) => self.leave(&goodbye),
            Ok(Ok(Some(SubscribeResponse { frame }))) => {
                self.hear(frame);
                Ok(())
            }
            Ok(Ok(None)) => self.broken(&Status::unavailable("the stream ended without a goodbye")),
            Ok(Err(status)) => self.broken(&status),
            Err(_) => self.broken(&Status::deadline_exceeded("nothing was heard for 60s")),
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if let Some(outage) = &self.outage {
            sleep_until(outage.retry).await;
        }
        let (places, endpoint) = (&self.places, &self.endpoint);
        let opening = self.opening.get_or_insert_with(|| {
            let mut request = Request::new(SubscribeRequest { channels: places.values().map(Place::start).collect() });
            endpoint.authorize(&mut request);
            ReusableBoxFuture::new(open_stream(endpoint.channel(), request))
        });
        let opened = opening.await;
        self.opening = None;
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                self.heard = Instant::now();
                Ok(())
            }
            Err(status) => self.broken(&status),
        }
    }

    fn hear(&mut self, frame: Option<Frame>) {
        match frame {
            Some(Frame::Messages(frame)) => self.unread = frame.messages.into_iter(),
            Some(Frame::CaughtUp(caught_up)) => self.held = Some(Event::CaughtUp(caught_up)),
            Some(Frame::Gap(gap)) => self.held = Some(Event::Gap(gap)),
            Some(Frame::Reset(reset)) => self.held = Some(Event::Reset(reset)),
            Some(Frame::Heartbeat(_) | Frame::Goodbye(_)) | None => {} // a sign of life
        }
        self.heard = Instant::now();
        self.endpoint.is_back();
        self.outage = None;
    }

    /// The instance ends the stream: goes elsewhere at once, if there is an elsewhere.
    fn leave(&mut self, goodbye: &Goodbye) -> Result<(), Error> {
        let back = goodbye.retry_after.and_then(|time| time.try_into().ok());
        self.endpoint.rests_for(back);
        let elsewhere = self.endpoints.pick_other_than(Some(&self.endpoint));
        if self.outage.is_some() || Arc::ptr_eq(&elsewhere, &self.endpoint) {
            return self.again(&Status::unavailable("the instance said goodbye"), back);
        }
        self.outage = Some(Outage::begin());
        self.endpoint = elsewhere;
        self.forget_stream();
        Ok(())
    }

    /// The stream broke, or did not come about.
    fn broken(&mut self, status: &Status) -> Result<(), Error> {
        let failure = Failure::from(status);
        self.endpoint.judge(&failure);
        if worth_repeating(&failure) {
            return self.again(status, failure.retry_after);
        }
        self.forget_stream();
        let address = self.endpoint.address().clone();
        Err(Error::Refused { method: "Subscribe", address, failure: Box::new(failure) })
    }

    /// Prepares another attempt, elsewhere.
    fn again(&mut self, status: &Status, asked: Option<Duration>) -> Result<(), Error> {
        let outage = self.outage.get_or_insert_with(Outage::begin);
        outage.attempts += 1;
        outage.retry = Instant::now() + outage.backoff.pause(asked);
        let (attempts, elapsed) = (outage.attempts, outage.begin.elapsed());
        let too_long = self.patience.is_some_and(|patience| outage.retry - outage.begin > patience);
        let last = Box::new(Refusal::new(status, self.endpoint.address()));
        self.endpoint = self.endpoints.pick_other_than(Some(&self.endpoint));
        self.forget_stream();
        if too_long {
            return Err(Error::GaveUp { method: "Subscribe", last, attempts, elapsed: whole_millis(elapsed) });
        }
        Ok(())
    }

    /// What was not returned yet comes again.
    fn forget_stream(&mut self) {
        self.stream = None;
        self.unread = Vec::new().into_iter();
    }
}

async fn open_stream(channel: Channel, request: Request<SubscribeRequest>) -> Opened {
    match timeout(OPENING, BroadcastServiceClient::new(channel).subscribe(request)).await {
        Ok(opened) => opened.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the stream was not accepted within 10s")),
    }
}
