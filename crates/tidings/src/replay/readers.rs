//! Readers that subscribe to a conversation while it is imported. Each must receive every message
//! once and in order.
//!
//! A reader works like a chat client: it subscribes first, reads the current `last_seq` from
//! history, then follows the channel. After a gap or reset (broadcast keeps channels in Redis,
//! which may lose them) it fills the missing messages from history. A message lost without notice
//! is a difference.

use std::future::pending;

use futures_util::future::{try_join, try_join_all};
use prost::Message as _;
use tidings_client::{Event, Subscription};
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::{self as pb, ListMessagesRequest};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::clients::{Error, ServiceClients};
use super::difference::Difference;
use super::findings::ReplayFindings;
use super::plan::PlannedConversation;

const PHASE: &str = "as received by a reader";

/// Messages in one page when filling from history.
const PAGE: i32 = 200;

/// Imports a conversation while `count` readers follow it. Returns whether every message was
/// acknowledged, and the findings.
pub(super) async fn read_during(
    clients: &ServiceClients,
    conversation: &PlannedConversation,
    count: u16,
    import: impl Future<Output = Result<(bool, ReplayFindings), Error>>,
) -> Result<(bool, ReplayFindings), Error> {
    let readers = try_join_all((0..count).map(|_| ConversationReader::open(clients, conversation))).await?;
    let (import_ended, ended) = watch::channel(None);
    let importing = async {
        let (complete, findings) = import.await?;
        import_ended.send_replace(Some(complete));
        Ok((complete, findings))
    };
    let reading = try_join_all(readers.into_iter().map(|reader| reader.run(ended.clone())));
    let ((complete, mut findings), read) = try_join(importing, reading).await?;
    for read in read {
        findings.add(read);
    }
    Ok((complete, findings))
}

/// A reader of one conversation.
struct ConversationReader<'a> {
    clients: &'a ServiceClients,
    conversation: &'a PlannedConversation,
    subscription: Subscription,
    /// Seq of the next expected message.
    next: i64,
    findings: ReplayFindings,
}

impl<'a> ConversationReader<'a> {
    /// Subscribes, then reads the current `last_seq`: every message committed later is pushed.
    async fn open(clients: &'a ServiceClients, conversation: &'a PlannedConversation) -> Result<Self, Error> {
        let mut subscription = clients.subscribe(&format!("conversation/{}", conversation.id));
        let caught_up = async {
            while !matches!(subscription.next().await?, Event::CaughtUp(_)) {}
            Ok::<_, Error>(())
        };
        timeout(clients.patience(), caught_up)
            .await
            .map_err(|_| Error::NoSubscription { patience: clients.patience() })??;
        let next = last_seq(clients, conversation).await? + 1;
        Ok(Self { clients, conversation, subscription, next, findings: ReplayFindings::default() })
    }

    /// Reads until every message was received, or no event arrives within the patience after the
    /// import. `ended` holds the end of the import: whether every message was acknowledged.
    async fn run(mut self, mut ended: watch::Receiver<Option<bool>>) -> Result<ReplayFindings, Error> {
        while self.next <= self.conversation.last_seq() {
            let silence = async {
                match ended.wait_for(Option::is_some).await.map(|complete| *complete) {
                    Ok(Some(true)) => sleep(self.clients.patience()).await,
                    Ok(_) => {}
                    Err(_) => pending().await, // the import failed, which cancels the readers too
                }
            };
            tokio::select! {
                event = self.subscription.next() => self.take(event?).await?,
                () = silence => break,
            }
        }
        if self.next <= self.conversation.last_seq() && *ended.borrow() == Some(true) {
            let missing = self.expected(self.next);
            self.findings.record(Difference::find(self.conversation, missing, None).map(|found| found.in_phase(PHASE)));
        }
        Ok(self.findings)
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Message(message) => match pb::Message::decode(message.data) {
                Ok(message) => self.receive(&message),
                Err(error) => self.record("data", "a message", error),
            },
            Event::Gap(gap) if gap.reason() == Reason::Unspecified => {
                let missing = format!("offsets {} to {} lost without notice", gap.first_offset, gap.last_offset);
                self.record("channel", "every offset, or a gap", missing);
                self.fill().await?;
            }
            Event::Gap(_) | Event::Reset(_) => {
                self.findings.counts.gaps_and_resets += 1;
                self.fill().await?;
            }
            Event::CaughtUp(_) => {}
        }
        Ok(())
    }

    /// Compares a pushed message.
    fn receive(&mut self, message: &pb::Message) {
        if message.seq > self.next {
            let lost = format!("messages from {} on were not pushed, without a gap or reset", self.next);
            self.record("message", self.next, lost);
            self.next = message.seq;
        }
        self.compare(message);
        if message.seq == self.next {
            self.findings.counts.pushed += 1;
            self.next += 1;
        } else {
            self.findings.counts.pushed_again += 1;
        }
    }

    /// Reads from history the messages that broadcast lost: all those committed so far. Later ones
    /// are pushed.
    async fn fill(&mut self) -> Result<(), Error> {
        let mut request = ListMessagesRequest {
            conversation_id: self.conversation.id.clone(),
            anchor: Some(Anchor::AfterSeq(self.next - 1)),
            page_size: PAGE,
            min_seq: last_seq(self.clients, self.conversation).await?,
            ..Default::default()
        };
        if request.min_seq < self.next {
            return Ok(());
        }
        loop {
            let page = self.clients.messages(&request).await?;
            for message in &page.messages {
                if message.seq == self.next {
                    self.compare(message);
                    self.findings.counts.filled += 1;
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
        self.findings.record(difference.map(|found| found.in_phase(PHASE)));
    }

    fn record(&mut self, field: &'static str, expected: impl std::fmt::Display, read: impl std::fmt::Display) {
        let difference = Difference::conversation(self.conversation, field, expected, read);
        self.findings.record(Some(difference.in_phase(PHASE)));
    }

    fn expected(&self, seq: i64) -> Option<&'a super::plan::PlannedMessage> {
        self.conversation.messages.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }
}

/// Returns the seq of the newest committed message; 0 if there is none.
async fn last_seq(clients: &ServiceClients, conversation: &PlannedConversation) -> Result<i64, Error> {
    match clients.conversation(&conversation.id).await {
        Ok(read) => Ok(read.last_seq),
        Err(error) if error.precondition_failure().is_some() => Ok(0), // not created yet
        Err(error) => Err(error),
    }
}
