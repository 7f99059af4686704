//! Appends to conversations and reads them: every acknowledged message is stored once, under the
//! acknowledged seq, in the order of the appends.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_client::{Caller, Error};
use tidings_proto::history as pb;
use tidings_proto::history::body::Content;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::history::list_messages_request::Anchor;
use tokio::time::Instant;

use super::{CallError, LedgerCounts, Workload};
use crate::service::TestService;

const CONVERSATIONS: usize = 8;
/// One in this many calls is a read.
const READS: u64 = 3;
/// Retry time of the calls that prepare the workload and check its ledger.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages per page of the final check.
const PAGE_SIZE: i32 = 200;

/// The workload of history.
pub(crate) struct ConversationWorkload {
    caller: Caller,
    retrying: Caller,
    /// URL of the database of history.
    database: String,
    /// The newest acknowledged or listed seq of each conversation.
    newest: Vec<AtomicI64>,
    acknowledged: Mutex<Vec<AcknowledgedAppend>>,
    /// Reads that returned less than their minimum.
    reverted: Mutex<u64>,
    /// Differences between the listed messages and those in Postgres.
    differences: Mutex<Vec<String>>,
}

/// A message whose append was acknowledged.
#[derive(Clone, Debug)]
struct AcknowledgedAppend {
    conversation: usize,
    seq: i64,
    client_message_id: String,
    sent_at: Instant,
    acknowledged_at: Instant,
}

impl ConversationWorkload {
    /// Creates the conversations.
    pub(crate) async fn new(caller: Caller, instances: &[TestService], database: String) -> Self {
        let retrying = super::caller_with_retries(instances, PATIENCE);
        for number in 0..CONVERSATIONS {
            let kind = pb::conversation::Kind::Open.into();
            let conversation = pb::Conversation { id: id(number), kind, ..pb::Conversation::default() };
            let request = pb::CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
            let send =
                async |channel, request| ConversationServiceClient::new(channel).create_conversation(request).await;
            retrying.call("CreateConversation", &request, send).await.unwrap();
        }
        let newest = (0..CONVERSATIONS).map(|_| AtomicI64::new(0)).collect();
        Self {
            caller,
            retrying,
            database,
            newest,
            acknowledged: Mutex::default(),
            reverted: Mutex::default(),
            differences: Mutex::default(),
        }
    }

    async fn append(&self, conversation: usize, client_message_id: String) -> Result<(), Error> {
        let request = pb::AppendMessageRequest {
            conversation_id: id(conversation),
            sender_id: "ada".to_owned(),
            client_message_id: client_message_id.clone(),
            body: Some(pb::Body { content: Some(Content::Text(client_message_id.clone())) }),
            ..Default::default()
        };
        let sent_at = Instant::now();
        let send = async |channel, request| HistoryServiceClient::new(channel).append_message(request).await;
        let answer = self.caller.call("AppendMessage", &request, send).await?;
        let seq = answer.message.unwrap_or_default().seq;
        self.newest[conversation].fetch_max(seq, Ordering::SeqCst);
        let acknowledged_at = Instant::now();
        let append = AcknowledgedAppend { conversation, seq, client_message_id, sent_at, acknowledged_at };
        self.acknowledged.lock().unwrap().push(append);
        Ok(())
    }

    /// Reads the newest messages with the newest known seq as minimum.
    async fn read(&self, conversation: usize) -> Result<(), Error> {
        let min_seq = self.newest[conversation].load(Ordering::SeqCst);
        let page = list(&self.caller, conversation, None, min_seq).await?;
        let newest = page.messages.last().map_or(0, |message| message.seq);
        if page.last_seq < min_seq || newest < min_seq {
            *self.reverted.lock().unwrap() += 1;
        }
        self.newest[conversation].fetch_max(page.last_seq, Ordering::SeqCst);
        Ok(())
    }

    /// Returns seq and client message id of all messages, as the service lists them.
    async fn listed(&self, conversation: usize) -> Vec<(i64, String)> {
        let mut all: Vec<(i64, String)> = Vec::new();
        let newest = self.newest[conversation].load(Ordering::SeqCst);
        loop {
            let after = all.last().map_or(0, |(seq, _)| *seq);
            let page = list(&self.retrying, conversation, Some(after), newest).await.unwrap();
            if page.messages.is_empty() {
                return all;
            }
            all.extend(page.messages.into_iter().map(|message| (message.seq, message.client_message_id)));
        }
    }

    /// Returns seq and client message id of all messages in Postgres.
    async fn stored(&self, conversation: usize) -> Vec<(i64, String)> {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let select = "SELECT seq, client_message_id FROM message
                      WHERE conversation_no = (SELECT no FROM conversation WHERE id = $1) ORDER BY seq";
        sqlx::query_as(select).bind(id(conversation)).fetch_all(&mut connection).await.unwrap()
    }
}

impl Workload for ConversationWorkload {
    const NAME: &'static str = "history";

    async fn call(&self, number: u64) -> Result<(), CallError> {
        let conversation = usize::try_from(number).unwrap() % CONVERSATIONS;
        let result = if number.is_multiple_of(READS) {
            self.read(conversation).await
        } else {
            self.append(conversation, format!("message-{number}")).await
        };
        result.map_err(|error| CallError::from(&error))
    }

    fn ledger_lines(&self) -> Vec<String> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let differences = self.differences.lock().unwrap();
        differences.iter().cloned().chain(acknowledged.iter().map(|append| format!("{append:?}"))).collect()
    }

    async fn check_ledger(&self) -> LedgerCounts {
        let mut counts = LedgerCounts { reverted: *self.reverted.lock().unwrap(), ..LedgerCounts::default() };
        let mut acknowledged: Vec<Vec<AcknowledgedAppend>> = (0..CONVERSATIONS).map(|_| Vec::new()).collect();
        for append in self.acknowledged.lock().unwrap().iter().cloned() {
            acknowledged[append.conversation].push(append);
        }
        for (conversation, appends) in acknowledged.iter_mut().enumerate() {
            appends.sort_by_key(|append| append.seq);
            let (listed, stored) = (self.listed(conversation).await, self.stored(conversation).await);
            if listed != stored {
                let difference = format!("{}: listed {listed:?}, stored {stored:?}", id(conversation));
                self.differences.lock().unwrap().push(difference);
            }
            counts += check_messages(&stored, appends);
            counts.acknowledged -= appends.len() as u64; // counted again by the second check
            counts += check_messages(&listed, appends);
        }
        counts
    }
}

/// Compares the messages of a conversation with its acknowledged appends, which are sorted by seq.
fn check_messages(messages: &[(i64, String)], appends: &[AcknowledgedAppend]) -> LedgerCounts {
    let mut seqs_by_id: HashMap<&str, Vec<i64>> = HashMap::new();
    for (seq, client_message_id) in messages {
        seqs_by_id.entry(client_message_id).or_default().push(*seq);
    }
    let mut counts = LedgerCounts { acknowledged: appends.len() as u64, ..LedgerCounts::default() };
    for seqs in seqs_by_id.values() {
        counts.duplicated += seqs.len() as u64 - 1;
    }
    // Holes in the seqs count as one lost message, which a reader may have received.
    counts.lost += (1..).zip(messages).filter(|(expected, (seq, _))| expected != seq).count().min(1) as u64;
    for append in appends {
        match seqs_by_id.get(append.client_message_id.as_str()).map(Vec::as_slice) {
            None => counts.lost += 1,
            Some(seqs) if !seqs.contains(&append.seq) => counts.reordered += 1,
            Some(_) => {}
        }
    }
    // An append that was sent after the acknowledgement of another has the larger seq.
    let mut earliest = None;
    for append in appends.iter().rev() {
        if earliest.is_some_and(|acknowledged_at| acknowledged_at < append.sent_at) {
            counts.reordered += 1;
        }
        earliest = Some(earliest.map_or(append.acknowledged_at, |other: Instant| other.min(append.acknowledged_at)));
    }
    counts
}

/// Lists a page of messages after `after`, or the newest three.
async fn list(
    caller: &Caller,
    conversation: usize,
    after: Option<i64>,
    min_seq: i64,
) -> Result<pb::ListMessagesResponse, Error> {
    let page_size = if after.is_some() { PAGE_SIZE } else { 3 };
    let anchor = after.map(Anchor::AfterSeq);
    let request =
        pb::ListMessagesRequest { conversation_id: id(conversation), anchor, page_size, min_seq, ..Default::default() };
    let send = async |channel, request| HistoryServiceClient::new(channel).list_messages(request).await;
    caller.call("ListMessages", &request, send).await
}

fn id(number: usize) -> String {
    format!("conversation-{number}")
}
