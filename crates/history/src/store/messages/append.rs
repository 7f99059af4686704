//! The transaction that appends a batch: locks, finds duplicates, assigns seqs, inserts.
//!
//! Lock order everywhere: conversation rows ascending, then messages, then outbox. A statement of
//! its own finds the duplicates *after* the locks are held, so that its snapshot includes
//! everything that other transactions committed while this one waited.

use std::collections::{BTreeMap, HashMap};

use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection};
use tidings_trace::TraceParent;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append_one::committed;
use crate::model::{AppendOutcome, AppendRequest, Body, ConversationId, ConversationNo, Message};
use crate::store::row::query_rows;

/// State that was read under the row locks of the conversations.
#[derive(Debug, Default)]
pub struct LockedState {
    /// The conversations that exist, by id.
    pub conversations: HashMap<ConversationId, ConversationRow>,
    /// The messages that already have one of the keys in the batch.
    pub messages: HashMap<MessageKey, StoredMessage>,
}

/// A message that has a key already.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Fingerprint of the request that appended it.
    pub fingerprint: Vec<u8>,
    /// Seq of the message.
    pub seq: i64,
}

/// A locked conversation.
#[derive(Clone, Copy, Debug)]
pub struct ConversationRow {
    /// Number of the conversation.
    pub no: ConversationNo,
    /// Seq of its newest message; 0 if there is none.
    pub last_seq: i64,
    /// `create_time` of its newest message.
    pub last_time: Option<OffsetDateTime>,
}

/// Unique key of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageKey {
    conversation: ConversationNo,
    sender: String,
    client_message_id: String,
}

impl MessageKey {
    /// Returns the key of a message that is to be appended.
    pub fn of(conversation: ConversationNo, message: &AppendRequest) -> Self {
        let (sender, client_message_id) = (message.sender.to_string(), message.client_message_id.clone());
        Self { conversation, sender, client_message_id }
    }
}

/// Decision about one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendDecision {
    /// The message is new and gets a seq.
    New(AssignedSeq),
    /// A stored message has the same key and content.
    AlreadyStored {
        /// Seq of that message.
        seq: i64,
    },
    /// An earlier item of the batch has the same key and content.
    DuplicateOf {
        /// Index of that item.
        index: usize,
    },
    /// The conversation does not exist.
    NoConversation,
    /// The key belongs to a message with different content.
    KeyReused {
        /// Seq of that message.
        seq: i64,
    },
    /// The message to reply to does not exist yet.
    NoReplyTarget {
        /// Seq of the newest message.
        last_seq: i64,
    },
}

/// The seq assigned to a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedSeq {
    /// Number of the conversation.
    pub conversation: ConversationNo,
    /// Seq of the message in that conversation.
    pub seq: i64,
}

pub(super) async fn append(
    connection: &mut PgConnection,
    messages: &[AppendRequest],
    trace_parent: Option<TraceParent>,
    decide: fn(&[AppendRequest], &LockedState) -> Vec<AppendDecision>,
) -> Result<Vec<AppendOutcome>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let conversations = lock(&mut transaction, messages).await?;
    let taken = find_keys(&mut transaction, messages, &conversations).await?;
    let locked = LockedState { messages: taken, conversations };
    let decisions = decide(messages, &locked);
    let stored =
        read(&mut transaction, locked.messages.iter().map(|(key, stored)| (key.conversation, stored.seq))).await?;
    let batch = BatchColumns::new(messages, &decisions, &locked);
    let times =
        if batch.seqs.is_empty() { HashMap::new() } else { insert(&mut transaction, &batch, trace_parent).await? };
    transaction.commit().await?;
    Ok(outcomes(messages, &decisions, &locked, &stored, &batch, &times))
}

/// Locks the conversations in ascending order, so that appends cannot deadlock.
async fn lock(
    connection: &mut PgConnection,
    messages: &[AppendRequest],
) -> Result<HashMap<ConversationId, ConversationRow>, sqlx::Error> {
    let ids: Vec<String> = messages.iter().map(|message| message.conversation.to_string()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT no,
               id,
               last_seq,
               last_time
        FROM conversation
        WHERE id = ANY($1)
        ORDER BY no
        LIMIT 100
        FOR NO KEY UPDATE
        "#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let locked =
                ConversationRow { no: ConversationNo::new(row.no), last_seq: row.last_seq, last_time: row.last_time };
            (ConversationId::new(row.id), locked)
        })
        .collect())
}

/// Finds the messages that already have one of the keys.
///
/// Joins no other table: Postgres would then look up messages by their conversation alone and read
/// whole conversations.
async fn find_keys(
    connection: &mut PgConnection,
    messages: &[AppendRequest],
    conversations: &HashMap<ConversationId, ConversationRow>,
) -> Result<HashMap<MessageKey, StoredMessage>, sqlx::Error> {
    let keys: Vec<MessageKey> = messages
        .iter()
        .filter_map(|message| Some(MessageKey::of(conversations.get(&message.conversation)?.no, message)))
        .collect();
    let conversation_nos: Vec<i64> = keys.iter().map(|key| key.conversation.get()).collect();
    let senders: Vec<String> = keys.iter().map(|key| key.sender.clone()).collect();
    let client_message_ids: Vec<String> = keys.iter().map(|key| key.client_message_id.clone()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT message.conversation_no,
               message.sender_id,
               message.client_message_id,
               fingerprint,
               seq
        FROM UNNEST($1::bigint[], $2::text[], $3::text[]) AS asked (conversation_no, sender_id, client_message_id)
        JOIN message USING (conversation_no, sender_id, client_message_id)
        LIMIT 100
        "#,
        &conversation_nos,
        &senders,
        &client_message_ids,
    )
    .fetch_all(connection)
    .await?;
    let taken = rows.into_iter().map(|row| {
        let key = MessageKey {
            conversation: ConversationNo::new(row.conversation_no),
            sender: row.sender_id,
            client_message_id: row.client_message_id,
        };
        (key, StoredMessage { fingerprint: row.fingerprint, seq: row.seq })
    });
    Ok(taken.collect())
}

/// Reads messages by conversation and seq, in their current version.
async fn read(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = (ConversationNo, i64)>,
) -> Result<HashMap<(i64, i64), Message>, sqlx::Error> {
    let (conversation_nos, seqs): (Vec<i64>, Vec<i64>) = keys.map(|(no, seq)| (no.get(), seq)).unzip();
    if seqs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = query_rows!(
        "
        FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (conversation_no, seq)
        JOIN message USING (conversation_no, seq),
             LATERAL (
                 SELECT id
                 FROM conversation
                 WHERE no = message.conversation_no
                 LIMIT 1
             ) AS conversation
        LIMIT 100",
        &conversation_nos,
        &seqs,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.conversation_no, row.seq), Message::from(row))).collect())
}

/// The new messages of a batch, column by column, and the seq range of each conversation.
#[derive(Default)]
struct BatchColumns<'a> {
    conversations: Vec<i64>,
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    senders: Vec<&'a str>,
    client_message_ids: Vec<&'a str>,
    fingerprints: Vec<&'a [u8]>,
    texts: Vec<Option<&'a str>>,
    binaries: Vec<Option<&'a [u8]>>,
    content_types: Vec<Option<&'a str>>,
    replies: Vec<i64>,
    attributes: Vec<Json<&'a BTreeMap<String, String>>>,
    last_times: Vec<Option<OffsetDateTime>>,
    /// First and last new seq, by number of the conversation.
    ranges: BTreeMap<i64, (i64, i64)>,
}

impl<'a> BatchColumns<'a> {
    fn new(messages: &'a [AppendRequest], decisions: &[AppendDecision], locked: &LockedState) -> Self {
        let mut batch = Self::default();
        for (message, decision) in messages.iter().zip(decisions) {
            if let (AppendDecision::New(assigned), Some(row)) =
                (decision, locked.conversations.get(&message.conversation))
            {
                batch.add(message, *assigned, row.last_time);
            }
        }
        batch
    }

    fn add(&mut self, message: &'a AppendRequest, assigned: AssignedSeq, last_time: Option<OffsetDateTime>) {
        let no = assigned.conversation.get();
        let (text, data, content_type) = match &message.body {
            Body::Text(text) => (Some(text.as_str()), None, None),
            Body::Binary { data, content_type } => (None, Some(&data[..]), Some(content_type.as_str())),
        };
        self.conversations.push(no);
        self.seqs.push(assigned.seq);
        self.ids.push(Uuid::now_v7());
        self.senders.push(message.sender.as_str());
        self.client_message_ids.push(&message.client_message_id);
        self.fingerprints.push(&message.fingerprint);
        self.texts.push(text);
        self.binaries.push(data);
        self.content_types.push(content_type);
        self.replies.push(message.reply_to_seq);
        self.attributes.push(Json(&message.attributes));
        self.last_times.push(last_time);
        self.ranges.entry(no).or_insert((assigned.seq, assigned.seq)).1 = assigned.seq;
    }
}

/// Inserts the messages, advances their conversations and inserts an outbox row for each
/// conversation. Returns the commit time of each message by conversation and seq.
///
/// A message's time is the clock of Postgres, or the time of the preceding message if that is
/// later.
async fn insert(
    connection: &mut PgConnection,
    batch: &BatchColumns<'_>,
    trace_parent: Option<TraceParent>,
) -> Result<HashMap<(i64, i64), OffsetDateTime>, sqlx::Error> {
    let conversation_nos: Vec<i64> = batch.ranges.keys().copied().collect();
    let first_seqs: Vec<i64> = batch.ranges.values().map(|range| range.0).collect();
    let last_seqs: Vec<i64> = batch.ranges.values().map(|range| range.1).collect();
    let rows = sqlx::query!(
        r#"
        WITH inserted AS (
            INSERT INTO message (
                conversation_no, seq, id, sender_id, client_message_id, fingerprint,
                body_text, body_data, content_type, reply_to_seq, attributes, create_time
            )
            SELECT no, seq, id, sender, name, fingerprint,
                   body_text, body_data, content_type, reply, attributes,
                   GREATEST(last_time, statement_timestamp())
            FROM UNNEST(
                $1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::bytea[],
                $7::text[], $8::bytea[], $9::text[], $10::bigint[], $11::jsonb[], $12::timestamptz[]
            ) AS new (no, seq, id, sender, name, fingerprint,
                      body_text, body_data, content_type, reply, attributes, last_time)
            RETURNING conversation_no, seq, create_time
        ), moved AS (
            UPDATE conversation
            SET last_seq = new.last_seq,
                last_time = GREATEST(conversation.last_time, statement_timestamp())
            FROM UNNEST($13::bigint[], $15::bigint[]) AS new (no, last_seq)
            WHERE conversation.no = new.no
        ), news AS (
            INSERT INTO outbox (conversation_no, first_seq, last_seq, trace_parent)
            SELECT no, first_seq, last_seq, $16::text
            FROM UNNEST($13::bigint[], $14::bigint[], $15::bigint[]) AS new (no, first_seq, last_seq)
        )
        SELECT conversation_no AS "conversation_no!",
               seq AS "seq!",
               create_time AS "create_time!"
        FROM inserted
        LIMIT 100
        "#,
        &batch.conversations,
        &batch.seqs,
        &batch.ids,
        &batch.senders as _,
        &batch.client_message_ids as _,
        &batch.fingerprints as _,
        &batch.texts as _,
        &batch.binaries as _,
        &batch.content_types as _,
        &batch.replies,
        &batch.attributes as _,
        &batch.last_times as _,
        &conversation_nos,
        &first_seqs,
        &last_seqs,
        trace_parent.map(|parent| parent.to_string()),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.conversation_no, row.seq), row.create_time)).collect())
}

/// Returns the outcome of each item after the commit.
fn outcomes(
    messages: &[AppendRequest],
    decisions: &[AppendDecision],
    locked: &LockedState,
    stored: &HashMap<(i64, i64), Message>,
    batch: &BatchColumns<'_>,
    times: &HashMap<(i64, i64), OffsetDateTime>,
) -> Vec<AppendOutcome> {
    let mut ids = batch.ids.iter();
    let mut outcomes: Vec<AppendOutcome> = Vec::with_capacity(messages.len());
    for (message, decision) in messages.iter().zip(decisions) {
        let outcome = match decision {
            AppendDecision::New(assigned) => {
                let time = times.get(&(assigned.conversation.get(), assigned.seq)).copied();
                let message = committed(message, assigned.seq, ids.next().copied(), time);
                AppendOutcome::Done { message, shard: assigned.conversation.shard(), deduplicated: false }
            }
            AppendDecision::DuplicateOf { index } => match &outcomes[*index] {
                AppendOutcome::Done { message, shard, .. } => {
                    AppendOutcome::Done { message: message.clone(), shard: *shard, deduplicated: true }
                }
                other => other.clone(),
            },
            AppendDecision::AlreadyStored { seq } => {
                let no = locked.conversations.get(&message.conversation).map(|row| row.no);
                match no.and_then(|no| Some((no, stored.get(&(no.get(), *seq))?))) {
                    Some((no, message)) => {
                        AppendOutcome::Done { message: message.clone(), shard: no.shard(), deduplicated: true }
                    }
                    None => AppendOutcome::NoConversation,
                }
            }
            AppendDecision::NoConversation => AppendOutcome::NoConversation,
            AppendDecision::KeyReused { seq } => AppendOutcome::KeyReused { seq: *seq },
            AppendDecision::NoReplyTarget { last_seq } => AppendOutcome::NoReplyTarget { last_seq: *last_seq },
        };
        outcomes.push(outcome);
    }
    outcomes
}
