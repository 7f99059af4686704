//! Readers who listen to a conversation while it is imported: each must get every message once and in order.
//!
//! They do what a chat client does: listen first, then look what is there already, then follow. What broadcast says is
//! missing (it keeps its channels in Redis, which may lose them) they read from history; what is missing unsaid is a
//! difference.

use std::future::pending;

use futures_util::future::{try_join, try_join_all};
use prost::Message as _;
use tidings_client::{Event, Subscription};
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::{self as pb, ListMessagesRequest};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::difference::Difference;
use super::findings::Findings;
use super::plan::Conversation;
use super::services::{Error, Services};

const DURING: &str = "as received by a reader";

/// Messages read from history at once, to fill what broadcast lost.
const PAGE: i32 = 200;

/// Imports a conversation while `count` readers listen. Returns whether all of it was acknowledged, and what was found.
pub(super) async fn listen_during(
    services: &Services,
    conversation: &Conversation,
    count: u16,
    import: impl Future<Output = Result<(bool, Findings), Error>>,
) -> Result<(bool, Findings), Error> {
    let readers = try_join_all((0..count).map(|_| Reader::open(services, conversation))).await?;
    let (ended, over) = watch::channel(None);
    let importing = async {
        let (complete, findings) = import.await?;
        ended.send_replace(Some(complete));
        Ok((complete, findings))
    };
    let reading = try_join_all(readers.into_iter().map(|reader| reader.run(over.clone())));
    let ((complete, mut findings), read) = try_join(importing, reading).await?;
    for read in read {
        findings.add(read);
    }
    Ok((complete, findings))
}

/// One reader.
struct Reader<'a> {
    services: &'a Services,
    conversation: &'a Conversation,
    subscription: Subscription,
    /// The number of the message that must come next.
    next: i64,
    findings: Findings,
}

impl<'a> Reader<'a> {
    /// Listens, then looks what is there already: what is committed from now on is pushed.
    async fn open(services: &'a Services, conversation: &'a Conversation) -> Result<Self, Error> {
        let mut subscription = services.subscribe(&format!("conversation/{}", conversation.id));
        let caught_up = async {
            while !matches!(subscription.next().await?, Event::CaughtUp(_)) {}
            Ok::<_, Error>(())
        };
        timeout(services.patience(), caught_up).await.map_err(|_| Error::Deaf { patience: services.patience() })??;
        let next = last_seq(services, conversation).await? + 1;
        Ok(Self { services, conversation, subscription, next, findings: Findings::default() })
    }

    /// Listens until it has everything, or nothing comes any more. `over` says when everything was sent, if it was.
    async fn run(mut self, mut over: watch::Receiver<Option<bool>>) -> Result<Findings, Error> {
        while self.next <= self.conversation.last_seq() {
            let silence = async {
                match over.wait_for(Option::is_some).await.map(|over| *over) {
                    Ok(Some(true)) => sleep(self.services.patience()).await,
                    Ok(_) => {}
                    Err(_) => pending().await, // the import failed, which ends us, too
                }
            };
            tokio::select! {
                event = self.subscription.next() => self.take(event?).await?,
                () = silence => break,
            }
        }
        if self.next <= self.conversation.last_seq() && *over.borrow() == Some(true) {
            let missing = self.expected(self.next);
            self.findings.differ(Difference::find(self.conversation, missing, None).map(|found| found.during(DURING)));
        }
        Ok(self.findings)
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Message(message) => match pb::Message::decode(message.data) {
                Ok(message) => self.receive(&message),
                Err(error) => self.differ("data", "a message", error),
            },
            Event::Gap(gap) if gap.reason() == Reason::Unspecified => {
                let missing = format!("offsets {} to {} are missing unsaid", gap.first_offset, gap.last_offset);
                self.differ("channel", "every offset, or a word of it", missing);
                self.fill().await?;
            }
            Event::Gap(_) | Event::Reset(_) => {
                self.findings.tally.told += 1;
                self.fill().await?;
            }
            Event::CaughtUp(_) => {}
        }
        Ok(())
    }

    /// Compares a message that was pushed.
    fn receive(&mut self, message: &pb::Message) {
        if message.seq > self.next {
            let lost = format!("messages from {} on were not pushed, and nobody said so", self.next);
            self.differ("message", self.next, lost);
            self.next = message.seq;
        }
        self.compare(message);
        if message.seq == self.next {
            self.findings.tally.pushed += 1;
            self.next += 1;
        } else {
            self.findings.tally.pushed_again += 1;
        }
    }

    /// Reads what broadcast has lost: everything that is committed by now. What is not, is pushed.
    async fn fill(&mut self) -> Result<(), Error> {
        let mut request = ListMessagesRequest {
            conversation_id: self.conversation.id.clone(),
            anchor: Some(Anchor::AfterSeq(self.next - 1)),
            page_size: PAGE,
            min_seq: last_seq(self.services, self.conversation).await?,
            ..Default::default()
        };
        if request.min_seq < self.next {
            return Ok(());
        }
        loop {
            let page = self.services.messages(&request).await?;
            for message in &page.messages {
                if message.seq == self.next {
                    self.compare(message);
                    self.findings.tally.filled += 1;
                    self.next += 1;
                }
            }
            if page.newer_page_token.is_empty() {
                return Ok(());
            }
            (request.anchor, request.page_token) = (None, page.newer_page_token);
        }
    }

    fn compare(&mut self, message: &pb::Message) {
        let difference = Difference::find(self.conversation, self.expected(message.seq), Some(message));
        self.findings.differ(difference.map(|found| found.during(DURING)));
    }

    fn differ(&mut self, field: &'static str, expected: impl std::fmt::Display, read: impl std::fmt::Display) {
        let difference = Difference::conversation(self.conversation, field, expected, read);
        self.findings.differ(Some(difference.during(DURING)));
    }

    fn expected(&self, seq: i64) -> Option<&'a super::plan::Message> {
        self.conversation.messages.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }
}

/// The number of the newest message that is committed; 0 if there is none.
async fn last_seq(services: &Services, conversation: &Conversation) -> Result<i64, Error> {
    match services.conversation(&conversation.id).await {
        Ok(read) => Ok(read.last_seq),
        Err(error) if error.contradiction().is_some() => Ok(0), // not yet created
        Err(error) => Err(error),
    }
}
