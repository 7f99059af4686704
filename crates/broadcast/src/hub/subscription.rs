//! One stream: its cursors, and what it is told next.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use tokio::time::{Instant, Sleep, sleep_until};

use super::cursor::Cursor;
use super::feed::Feed;
use super::reads::Read;
use super::ring::Taken;
use super::seat::{Bell, Seat};
use super::{Error, Hub};
use crate::channels;
use crate::model::{Frame, Page, Position, Wish, count};

/// How long a read that failed waits before it is tried again: as long as Redis may take to be found again.
const PAUSE: Duration = Duration::from_millis(200);
/// When a stream that ends may come back: after a restart, and not all at the same moment.
const COME_BACK: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);

/// Comes when a stream has to end, because its connection or the process does.
pub struct Ending(Fuse<BoxFuture<'static, ()>>);

impl Ending {
    /// The moment at which this future ends.
    pub fn at(moment: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(moment.boxed().fuse())
    }

    /// Whether it has come; wakes the task when it does.
    async fn has_come(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.0.poll_unpin(cx).is_ready())).await
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ending")
    }
}

/// One stream. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    _ticket: Ticket,
    bell: Arc<Bell>,
    chairs: Vec<Chair>,
    /// What is told next; at most what one look or one page brings.
    frames: VecDeque<Frame>,
    /// Chairs that wait for a read, each once.
    behind: VecDeque<usize>,
    /// The read under way, one at a time, and for which chair.
    reading: Option<(usize, Read)>,
    /// When the next read may begin, after one that failed.
    pause: Option<Instant>,
    /// Why the last read failed.
    failure: Option<Arc<channels::Error>>,
    /// Chairs whose channel was not heard for sure yet.
    unheard: usize,
    /// Since when something is missing that the stream needs.
    missing: Option<Instant>,
    /// When something was told last.
    told: Instant,
    timer: Pin<Box<Sleep>>,
    /// Comes when the stream has to end.
    ending: Ending,
    ended: bool,
}

/// The place of the stream at one channel.
#[derive(Debug)]
struct Chair {
    seat: Arc<Seat>,
    feed: Arc<Feed>,
    place: usize,
    cursor: Cursor,
    heard: bool,
    /// Whether it waits for a read.
    waits: bool,
}

impl Drop for Chair {
    fn drop(&mut self) {
        self.feed.stand_up(self.place);
    }
}

/// One of the streams of this instance, for whoever counts them.
#[derive(Debug)]
struct Ticket(Arc<Hub>);

impl Ticket {
    fn take(hub: &Arc<Hub>) -> Self {
        hub.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Subscription {
    /// Sits down at the channels first, then reads where they stand: what is published from then on is heard, or read.
    pub(super) async fn begin(hub: &Arc<Hub>, wishes: &[Wish], ending: Ending) -> Result<Self, Error> {
        let ticket = Ticket::take(hub);
        let bell = Arc::new(Bell::default());
        let mut chairs: Vec<_> = wishes
            .iter()
            .enumerate()
            .map(|(number, wish)| {
                let seat = Seat::new(&bell, number);
                let (feed, place, losses) = hub.directory.sit(&wish.channel, Arc::clone(&seat));
                Chair { seat, feed, place, cursor: Cursor::nowhere(losses), heard: false, waits: false }
            })
            .collect();
        let stands = hub.channels.stands(wishes.iter().map(|wish| &wish.channel)).await?;
        let mut frames = VecDeque::new();
        for ((chair, wish), stand) in chairs.iter_mut().zip(wishes).zip(&stands) {
            frames.extend(chair.cursor.begin(&wish.channel, wish.start, stand));
        }
        let now = Instant::now();
        Ok(Self {
            hub: Arc::clone(hub),
            _ticket: ticket,
            bell,
            unheard: chairs.len(),
            chairs,
            frames,
            behind: VecDeque::new(),
            reading: None,
            pause: None,
            failure: None,
            missing: Some(now),
            told: now,
            timer: Box::pin(sleep_until(now + hub.limits.heartbeat)),
            ending,
            ended: false,
        })
    }

    /// What the stream is told next; `None` after its end. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error`]; the stream has ended.
    pub async fn next(&mut self) -> Option<Result<Frame, Error>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                self.told = Instant::now();
                self.hub.numbers.told(&frame);
                return Some(Ok(frame));
            }
            if self.ended {
                return None;
            }
            if self.ending.has_come().await {
                self.say_goodbye();
                continue;
            }
            if let Some(error) = self.overdue() {
                self.ended = true;
                return Some(Err(error));
            }
            // Also while other channels are so busy that the stream never waits.
            if let Some((number, read)) = &mut self.reading
                && let Some(page) = read.now_or_never()
            {
                let number = *number;
                self.meet(number, page);
            } else if let Some(number) = self.bell.answer() {
                self.look(number);
            } else {
                self.wait().await;
            }
        }
    }

    /// The stream has to end.
    fn say_goodbye(&mut self) {
        self.ended = true;
        self.frames.push_back(Frame::Goodbye { retry_after: rand::random_range(COME_BACK) });
    }

    /// Takes what the ring of a channel has.
    fn look(&mut self, number: usize) {
        let chair = &mut self.chairs[number];
        chair.seat.heed();
        if chair.waits {
            return; // and looks again when it has read
        }
        let Some(taken) = chair.feed.take(&chair.cursor) else {
            return; // and is rung when the channel is live
        };
        if !std::mem::replace(&mut chair.heard, true) {
            self.unheard -= 1;
        }
        let (channel, cursor) = (&chair.feed.channel, &mut chair.cursor);
        match taken {
            Taken::Behind => {
                chair.waits = true;
                self.behind.push_back(number);
            }
            Taken::Nothing => self.frames.extend(cursor.caught_up(channel)),
            Taken::Messages { epoch, messages, more } => {
                self.frames.extend(cursor.caught_up(channel));
                cursor.position = Position { epoch, offset: cursor.position.offset + count(messages.len()) };
                self.frames.push_back(Frame::Messages(messages));
                self.frames.extend(cursor.caught_up(channel));
                if more {
                    chair.seat.ring(); // behind the others
                }
            }
        }
        self.read_on();
    }

    /// Goes on by what Redis has of a channel.
    fn meet(&mut self, number: usize, page: Result<Arc<Page>, Arc<channels::Error>>) {
        self.reading = None;
        let chair = &mut self.chairs[number];
        match page {
            Ok(page) => {
                self.failure = None;
                chair.waits = false;
                let told = chair.cursor.meet(&chair.feed.channel, &page, chair.feed.present());
                if told.is_empty() {
                    // The ring is somewhere else than Redis: it looks again when that is mended.
                    self.hub.see_to(&chair.feed, chair.feed.ask());
                } else {
                    chair.seat.ring();
                }
                self.frames.extend(told);
            }
            Err(error) => {
                self.failure = Some(error);
                self.behind.push_back(number);
                self.pause = Some(Instant::now() + PAUSE);
            }
        }
        self.read_on();
    }

    /// Begins the next read, if one is due; and notes since when the stream lacks what it needs.
    fn read_on(&mut self) {
        if self.reading.is_none()
            && self.pause.is_none()
            && let Some(number) = self.behind.pop_front()
        {
            let Chair { feed, cursor, .. } = &self.chairs[number];
            self.reading = Some((number, self.hub.reads.join(&feed.channel, cursor.position)));
        }
        if self.unheard == 0 && self.failure.is_none() {
            self.missing = None;
        } else {
            self.missing.get_or_insert_with(Instant::now);
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let heartbeat = self.told + self.hub.limits.heartbeat;
        let patience = self.missing.map(|since| since + self.hub.limits.patience);
        let due = [self.pause, patience].into_iter().flatten().fold(heartbeat, Instant::min);
        // Set anew only if it would be late: one that is early costs a look, and is rarer than frames are.
        if self.timer.is_elapsed() || self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        let reading = async {
            match &mut self.reading {
                Some((number, read)) => (*number, read.await),
                None => std::future::pending().await,
            }
        };
        // What most wake-ups are for comes first, and the rest is not looked at then: a bell that rings is answered before
        // anything is waited for.
        tokio::select! {
            biased;
            () = self.bell.rings() => {}
            () = &mut self.ending.0 => self.say_goodbye(),
            (number, page) = reading => self.meet(number, page),
            () = self.timer.as_mut() => self.look_at_the_time(),
        }
    }

    fn look_at_the_time(&mut self) {
        let now = Instant::now();
        if now >= self.told + self.hub.limits.heartbeat {
            self.frames.push_back(Frame::Heartbeat { degraded: !self.hub.hears() });
        }
        if self.pause.take_if(|pause| now >= *pause).is_some() {
            self.read_on();
        }
    }

    /// Why the stream can not go on, if it has waited too long for what it needs.
    fn overdue(&self) -> Option<Error> {
        self.missing.filter(|since| since.elapsed() >= self.hub.limits.patience)?;
        Some(self.failure.clone().map_or(Error::Unheard, Error::Unread))
    }
}
