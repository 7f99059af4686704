//! Conversations that are written to and read: every acknowledged message is there once, under the number that was told, in the
//! order in which messages were sent.

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

use super::{Account, Refused, Work};
use crate::service::Service;

const CONVERSATIONS: usize = 8;
/// One call in so many reads.
const READS: u64 = 3;
/// How long it may take to look at what there is at the end.
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: i32 = 200;

/// The work.
pub(crate) struct Conversations {
    caller: Caller,
    patient: Caller,
    /// Where the truth is.
    database: String,
    /// The number of each conversation's newest message of which anybody knows.
    known: Vec<AtomicI64>,
    acks: Mutex<Vec<Ack>>,
    gone_back: Mutex<u64>,
    /// Where the service told something else than what is in Postgres.
    differences: Mutex<Vec<String>>,
}

/// A message that was acknowledged.
#[derive(Clone, Debug)]
struct Ack {
    conversation: usize,
    seq: i64,
    nonce: String,
    begun: Instant,
    heard: Instant,
}

impl Conversations {
    /// Conversations that are held by `caller`.
    pub(crate) async fn new(caller: Caller, instances: &[Service], database: String) -> Self {
        let patient = super::caller(instances, PATIENCE);
        for number in 0..CONVERSATIONS {
            let kind = pb::conversation::Kind::Open.into();
            let conversation = pb::Conversation { id: id(number), kind, ..pb::Conversation::default() };
            let request = pb::CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
            let send =
                async |channel, request| ConversationServiceClient::new(channel).create_conversation(request).await;
            patient.call("CreateConversation", &request, send).await.unwrap();
        }
        let known = (0..CONVERSATIONS).map(|_| AtomicI64::new(0)).collect();
        Self {
            caller,
            patient,
            database,
            known,
            acks: Mutex::default(),
            gone_back: Mutex::default(),
            differences: Mutex::default(),
        }
    }

    async fn append(&self, conversation: usize, nonce: String) -> Result<(), Error> {
        let request = pb::AppendMessageRequest {
            conversation_id: id(conversation),
            sender_id: "ada".to_owned(),
            client_message_id: nonce.clone(),
            body: Some(pb::Body { content: Some(Content::Text(nonce.clone())) }),
            ..Default::default()
        };
        let begun = Instant::now();
        let send = async |channel, request| HistoryServiceClient::new(channel).append_message(request).await;
        let answer = self.caller.call("AppendMessage", &request, send).await?;
        let seq = answer.message.unwrap_or_default().seq;
        self.known[conversation].fetch_max(seq, Ordering::SeqCst);
        self.acks.lock().unwrap().push(Ack { conversation, seq, nonce, begun, heard: Instant::now() });
        Ok(())
    }

    async fn read(&self, conversation: usize) -> Result<(), Error> {
        let least = self.known[conversation].load(Ordering::SeqCst);
        let page = list(&self.caller, conversation, None, least).await?;
        let newest = page.messages.last().map_or(0, |message| message.seq);
        if page.last_seq < least || newest < least {
            *self.gone_back.lock().unwrap() += 1;
        }
        self.known[conversation].fetch_max(page.last_seq, Ordering::SeqCst);
        Ok(())
    }

    /// All messages of a conversation, as the service tells them, by whatever way: their numbers and what they say.
    async fn told(&self, conversation: usize) -> Vec<(i64, String)> {
        let mut all: Vec<(i64, String)> = Vec::new();
        let known = self.known[conversation].load(Ordering::SeqCst);
        loop {
            let after = all.last().map_or(0, |(seq, _)| *seq);
            let page = list(&self.patient, conversation, Some(after), known).await.unwrap();
            if page.messages.is_empty() {
                return all;
            }
            all.extend(page.messages.into_iter().map(|message| (message.seq, message.client_message_id)));
        }
    }

    /// All messages of a conversation, as they are in Postgres.
    async fn stored(&self, conversation: usize) -> Vec<(i64, String)> {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let select = "SELECT seq, client_message_id FROM message
                      WHERE conversation_no = (SELECT no FROM conversation WHERE id = $1) ORDER BY seq";
        sqlx::query_as(select).bind(id(conversation)).fetch_all(&mut connection).await.unwrap()
    }
}

impl Work for Conversations {
    const NAME: &'static str = "history";

    async fn once(&self, number: u64) -> Result<(), Refused> {
        let conversation = usize::try_from(number).unwrap() % CONVERSATIONS;
        let done = if number.is_multiple_of(READS) {
            self.read(conversation).await
        } else {
            self.append(conversation, format!("message-{number}")).await
        };
        done.map_err(|error| Refused::from(&error))
    }

    fn history(&self) -> Vec<String> {
        let acks = self.acks.lock().unwrap();
        let differences = self.differences.lock().unwrap();
        differences.iter().cloned().chain(acks.iter().map(|ack| format!("{ack:?}"))).collect()
    }

    async fn account(&self) -> Account {
        let mut account = Account { gone_back: *self.gone_back.lock().unwrap(), ..Account::default() };
        let mut acks: Vec<Vec<Ack>> = (0..CONVERSATIONS).map(|_| Vec::new()).collect();
        for ack in self.acks.lock().unwrap().iter().cloned() {
            acks[ack.conversation].push(ack);
        }
        for (conversation, acks) in acks.iter_mut().enumerate() {
            acks.sort_by_key(|ack| ack.seq);
            let (told, stored) = (self.told(conversation).await, self.stored(conversation).await);
            if told != stored {
                let differ = format!("{}: told {told:?}, stored {stored:?}", id(conversation));
                self.differences.lock().unwrap().push(differ);
            }
            account += judge(&stored, acks);
            account.acknowledged -= acks.len() as u64; // they are the same
            account += judge(&told, acks);
        }
        account
    }
}

/// Compares a conversation with what was acknowledged of it, in order of the numbers.
fn judge(messages: &[(i64, String)], acks: &[Ack]) -> Account {
    let mut places: HashMap<&str, Vec<i64>> = HashMap::new();
    for (seq, nonce) in messages {
        places.entry(nonce).or_default().push(*seq);
    }
    let mut account = Account { acknowledged: acks.len() as u64, ..Account::default() };
    for places in places.values() {
        account.duplicated += places.len() as u64 - 1;
    }
    // A hole is a message that somebody may have been told of.
    account.lost += (1..).zip(messages).filter(|(expected, (seq, _))| expected != seq).count().min(1) as u64;
    for ack in acks {
        match places.get(ack.nonce.as_str()).map(Vec::as_slice) {
            None => account.lost += 1,
            Some(places) if !places.contains(&ack.seq) => account.reordered += 1,
            Some(_) => {}
        }
    }
    // Who sent after hearing of another has the larger number.
    let mut earliest = None;
    for ack in acks.iter().rev() {
        if earliest.is_some_and(|heard| heard < ack.begun) {
            account.reordered += 1;
        }
        earliest = Some(earliest.map_or(ack.heard, |heard: Instant| heard.min(ack.heard)));
    }
    account
}

async fn list(
    caller: &Caller,
    conversation: usize,
    after: Option<i64>,
    min_seq: i64,
) -> Result<pb::ListMessagesResponse, Error> {
    let page_size = if after.is_some() { PAGE } else { 3 };
    let anchor = after.map(Anchor::AfterSeq);
    let request =
        pb::ListMessagesRequest { conversation_id: id(conversation), anchor, page_size, min_seq, ..Default::default() };
    let send = async |channel, request| HistoryServiceClient::new(channel).list_messages(request).await;
    caller.call("ListMessages", &request, send).await
}

fn id(number: usize) -> String {
    format!("conversation-{number}")
}
