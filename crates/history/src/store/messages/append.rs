//! The transaction that appends: lock, find repeats, number, insert.
//!
//! Lock order everywhere: conversation rows ascending, then messages, then outbox. Repeats are looked for in a statement of
//! their own *after* the locks are held, so that its snapshot sees what others committed while we waited.

use std::collections::{BTreeMap, HashMap};

use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection};
use tidings_trace::TraceParent;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{Appended, Body, ConversationId, ConversationNo, Message, NewMessage, State};
use crate::store::row::Row;

/// What was found under the locks.
#[derive(Debug, Default)]
pub struct Found {
    /// The conversations.
    pub conversations: HashMap<ConversationId, ConversationRow>,
    /// Of the keys asked for, those that are taken: fingerprint and number.
    pub messages: HashMap<Key, (Vec<u8>, i64)>,
}

/// A locked conversation.
#[derive(Clone, Copy, Debug)]
pub struct ConversationRow {
    /// Its number.
    pub no: ConversationNo,
    /// The number of its newest message.
    pub last_seq: i64,
    /// When that was committed.
    pub last_time: Option<OffsetDateTime>,
}

/// What makes a message unique: conversation, sender and the sender's own name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(ConversationNo, String, String);

impl Key {
    /// The key of a message to be appended.
    pub fn of(conversation: ConversationNo, message: &NewMessage) -> Self {
        Self(conversation, message.sender.to_string(), message.client_message_id.clone())
    }
}

/// What is to become of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets a number.
    New(Numbered),
    /// It is the message of this number.
    Repeat {
        /// Which.
        seq: i64,
    },
    /// It is the same as an item before it in the batch.
    SameAs {
        /// Which.
        place: usize,
    },
    /// There is no such conversation.
    NoConversation,
    /// The key belongs to a message of another content.
    KeyReused {
        /// Its number.
        seq: i64,
    },
    /// The message to be answered is not there.
    NoReplyTarget {
        /// The newest that is.
        last_seq: i64,
    },
}

/// The number of a new message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// In which conversation.
    pub conversation: ConversationNo,
    /// The number.
    pub seq: i64,
}

pub(super) async fn append(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    cause: Option<TraceParent>,
    decide: fn(&[NewMessage], &Found) -> Vec<Verdict>,
) -> Result<Vec<Appended>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let conversations = lock(&mut transaction, messages).await?;
    let repeated = find(&mut transaction, messages, &conversations).await?;
    let found = Found { messages: repeated, conversations };
    let verdicts = decide(messages, &found);
    let repeats = read(&mut transaction, found.messages.iter().map(|(key, (_, seq))| (key.0, *seq))).await?;
    let batch = Batch::new(messages, &verdicts, &found);
    let times = if batch.seqs.is_empty() { HashMap::new() } else { insert(&mut transaction, &batch, cause).await? };
    transaction.commit().await?;
    Ok(answers(messages, &verdicts, &found, &repeats, &batch, &times))
}

/// Locks the conversations in ascending order, so that no two appends wait for each other in a circle.
async fn lock(
    connection: &mut PgConnection,
    messages: &[NewMessage],
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

/// The messages that have one of the keys already.
///
/// No other table is joined: Postgres would then look a message up by its conversation alone, and read all of it.
async fn find(
    connection: &mut PgConnection,
    messages: &[NewMessage],
    conversations: &HashMap<ConversationId, ConversationRow>,
) -> Result<HashMap<Key, (Vec<u8>, i64)>, sqlx::Error> {
    let keys: Vec<Key> = messages
        .iter()
        .filter_map(|message| Some(Key::of(conversations.get(&message.conversation)?.no, message)))
        .collect();
    let numbers: Vec<i64> = keys.iter().map(|key| key.0.get()).collect();
    let senders: Vec<String> = keys.iter().map(|key| key.1.clone()).collect();
    let names: Vec<String> = keys.iter().map(|key| key.2.clone()).collect();
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
        &numbers,
        &senders,
        &names,
    )
    .fetch_all(connection)
    .await?;
    let found = rows.into_iter().map(|row| {
        let key = Key(ConversationNo::new(row.conversation_no), row.sender_id, row.client_message_id);
        (key, (row.fingerprint, row.seq))
    });
    Ok(found.collect())
}

/// The messages of these places, as they are now.
async fn read(
    connection: &mut PgConnection,
    places: impl Iterator<Item = (ConversationNo, i64)>,
) -> Result<HashMap<(i64, i64), Message>, sqlx::Error> {
    let (numbers, seqs): (Vec<i64>, Vec<i64>) = places.map(|(no, seq)| (no.get(), seq)).unzip();
    if seqs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT message.conversation_no,
               (SELECT conversation.id FROM conversation WHERE no = message.conversation_no) AS "conversation_id!",
               message.seq,
               id,
               sender_id,
               client_message_id,
               body_text,
               body_data,
               content_type,
               reply_to_seq,
               attributes AS "attributes: Json<BTreeMap<String, String>>",
               state,
               edit_version,
               change_seq,
               create_time
        FROM UNNEST($1::bigint[], $2::bigint[]) AS asked (conversation_no, seq)
        JOIN message USING (conversation_no, seq)
        LIMIT 100
        "#,
        &numbers,
        &seqs,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.conversation_no, row.seq), Message::from(row))).collect())
}

/// The new messages as columns, and the conversations that they move.
#[derive(Default)]
struct Batch<'a> {
    conversations: Vec<i64>,
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    senders: Vec<&'a str>,
    names: Vec<&'a str>,
    fingerprints: Vec<&'a [u8]>,
    texts: Vec<Option<&'a str>>,
    datas: Vec<Option<&'a [u8]>>,
    content_types: Vec<Option<&'a str>>,
    replies: Vec<i64>,
    attributes: Vec<Json<&'a BTreeMap<String, String>>>,
    last_times: Vec<Option<OffsetDateTime>>,
    /// By number: first and last new message.
    moved: BTreeMap<i64, (i64, i64)>,
}

impl<'a> Batch<'a> {
    fn new(messages: &'a [NewMessage], verdicts: &[Verdict], found: &Found) -> Self {
        let mut batch = Self::default();
        for (message, verdict) in messages.iter().zip(verdicts) {
            if let (Verdict::New(numbered), Some(row)) = (verdict, found.conversations.get(&message.conversation)) {
                batch.add(message, *numbered, row.last_time);
            }
        }
        batch
    }

    fn add(&mut self, message: &'a NewMessage, numbered: Numbered, last_time: Option<OffsetDateTime>) {
        let no = numbered.conversation.get();
        let (text, data, content_type) = match &message.body {
            Body::Text(text) => (Some(text.as_str()), None, None),
            Body::Binary { data, content_type } => (None, Some(&data[..]), Some(content_type.as_str())),
        };
        self.conversations.push(no);
        self.seqs.push(numbered.seq);
        self.ids.push(Uuid::now_v7());
        self.senders.push(message.sender.as_str());
        self.names.push(&message.client_message_id);
        self.fingerprints.push(&message.fingerprint);
        self.texts.push(text);
        self.datas.push(data);
        self.content_types.push(content_type);
        self.replies.push(message.reply_to_seq);
        self.attributes.push(Json(&message.attributes));
        self.last_times.push(last_time);
        self.moved.entry(no).or_insert((numbered.seq, numbered.seq)).1 = numbered.seq;
    }
}

/// Inserts the messages, moves their conversations and leaves a row in the outbox for each; returns when, by key.
///
/// A message's time is the clock's, or that of the message before it if the clock has gone back.
async fn insert(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    cause: Option<TraceParent>,
) -> Result<HashMap<(i64, i64), OffsetDateTime>, sqlx::Error> {
    let moved: Vec<i64> = batch.moved.keys().copied().collect();
    let firsts: Vec<i64> = batch.moved.values().map(|range| range.0).collect();
    let lasts: Vec<i64> = batch.moved.values().map(|range| range.1).collect();
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
        &batch.names as _,
        &batch.fingerprints as _,
        &batch.texts as _,
        &batch.datas as _,
        &batch.content_types as _,
        &batch.replies,
        &batch.attributes as _,
        &batch.last_times as _,
        &moved,
        &firsts,
        &lasts,
        cause.map(|cause| cause.to_string()),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.conversation_no, row.seq), row.create_time)).collect())
}

/// What became of each item, now that it is committed.
fn answers(
    messages: &[NewMessage],
    verdicts: &[Verdict],
    found: &Found,
    repeats: &HashMap<(i64, i64), Message>,
    batch: &Batch<'_>,
    times: &HashMap<(i64, i64), OffsetDateTime>,
) -> Vec<Appended> {
    let mut ids = batch.ids.iter();
    let mut answers: Vec<Appended> = Vec::with_capacity(messages.len());
    for (message, verdict) in messages.iter().zip(verdicts) {
        let answer = match verdict {
            Verdict::New(numbered) => {
                let time = times.get(&(numbered.conversation.get(), numbered.seq)).copied();
                let message = committed(message, numbered.seq, ids.next().copied(), time);
                Appended::Done { message, shard: numbered.conversation.shard(), deduplicated: false }
            }
            Verdict::SameAs { place } => match &answers[*place] {
                Appended::Done { message, shard, .. } => {
                    Appended::Done { message: message.clone(), shard: *shard, deduplicated: true }
                }
                other => other.clone(),
            },
            Verdict::Repeat { seq } => {
                let no = found.conversations.get(&message.conversation).map(|row| row.no);
                match no.and_then(|no| Some((no, repeats.get(&(no.get(), *seq))?))) {
                    Some((no, message)) => {
                        Appended::Done { message: message.clone(), shard: no.shard(), deduplicated: true }
                    }
                    None => Appended::NoConversation,
                }
            }
            Verdict::NoConversation => Appended::NoConversation,
            Verdict::KeyReused { seq } => Appended::KeyReused { seq: *seq },
            Verdict::NoReplyTarget { last_seq } => Appended::NoReplyTarget { last_seq: *last_seq },
        };
        answers.push(answer);
    }
    answers
}

pub(super) fn committed(new: &NewMessage, seq: i64, id: Option<Uuid>, time: Option<OffsetDateTime>) -> Message {
    Message {
        conversation: new.conversation.clone(),
        seq,
        id: id.unwrap_or_default(),
        sender: new.sender.clone(),
        client_message_id: new.client_message_id.clone(),
        body: new.body.clone(),
        reply_to_seq: new.reply_to_seq,
        attributes: new.attributes.clone(),
        state: State::Active,
        edit_version: 1,
        change_seq: 0,
        create_time: time.unwrap_or(OffsetDateTime::UNIX_EPOCH).into(),
    }
}
