//! The in-memory history service.

use prost::Message as _;
use tidings_proto::broadcast::PublishRequest;
use tidings_proto::history::conversation_service_server::ConversationService;
use tidings_proto::history::history_service_server::HistoryService;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::read_info::Source;
use tidings_proto::history::{self as pb, Body, Conversation, Message, ReadInfo, body};
use tonic::{Code, Request, Response, Status};

use super::broadcast::Channel;
use super::{Damage, FakeHandler, Push, Store, refusal, unavailable};

impl FakeHandler {
    /// Returns the messages of a conversation, with the read fault if there is one.
    fn read(&self, store: &Store, id: &str, author: Option<&str>) -> Result<Vec<Message>, Status> {
        let (_, stored) = store.conversations.get(id).ok_or_else(absent)?;
        let is_selected = |message: &&Message| author.is_none_or(|author| message.sender_id == author);
        if let Some(damage) = self.faults.damage
            && store.conversations.keys().nth(1).is_some_and(|second| second == id)
        {
            let mut corrupted = stored.clone();
            corrupt(&mut corrupted, damage, author.is_some());
            return Ok(corrupted.iter().filter(is_selected).cloned().collect());
        }
        Ok(stored.iter().filter(is_selected).cloned().collect())
    }
}

/// Publishes a message like the relay, with the push fault if there is one.
fn push(store: &mut Store, message: &Message, damage: Option<Push>) {
    let channel = format!("conversation/{}", message.conversation_id);
    let mut pushed = vec![message.clone()];
    match damage {
        Some(Push::Lose(seq)) if seq == message.seq => pushed.clear(),
        Some(Push::Double(seq)) if seq == message.seq => pushed.push(message.clone()),
        Some(Push::Delay(seq)) if seq == message.seq => {
            store.delayed = Some(message.clone());
            pushed.clear();
        }
        Some(Push::Alter(seq)) if seq == message.seq => {
            pushed[0].body = Some(Body { content: Some(body::Content::Text("something else".into())) });
        }
        Some(Push::Reset(seq)) if seq == message.seq => {
            store.channels.insert(channel.clone(), Channel::new("e2"));
            pushed.clear();
        }
        _ => pushed.extend(store.delayed.take_if(|delayed| delayed.conversation_id == message.conversation_id)),
    }
    for message in pushed {
        let data = message.encode_to_vec().into();
        store.publish(PublishRequest { channel: channel.clone(), data, ..Default::default() });
    }
}

fn absent() -> Status {
    refusal(Code::NotFound, "CONVERSATION_NOT_FOUND", "there is no such conversation")
}

fn corrupt(messages: &mut Vec<Message>, damage: Damage, by_author: bool) {
    let (Damage::Lose(seq) | Damage::Double(seq) | Damage::Swap(seq) | Damage::Alter(seq) | Damage::LoseOfAuthor(seq)) =
        damage;
    let index = usize::try_from(seq - 1).unwrap();
    match damage {
        Damage::Lose(_) => drop(messages.remove(index)),
        Damage::LoseOfAuthor(_) if by_author => drop(messages.remove(index)),
        Damage::LoseOfAuthor(_) => {}
        Damage::Double(_) => {
            messages.insert(index, messages[index].clone());
            messages[index + 1..].iter_mut().for_each(|message| message.seq += 1);
        }
        Damage::Swap(_) => {
            messages.swap(index, index + 1);
            messages[index].seq -= 1;
            messages[index + 1].seq += 1;
        }
        Damage::Alter(_) => {
            messages[index].body = Some(Body { content: Some(body::Content::Text("something else".into())) });
        }
    }
}

#[tonic::async_trait]
impl ConversationService for FakeHandler {
    async fn create_conversation(
        &self,
        request: Request<pb::CreateConversationRequest>,
    ) -> Result<Response<pb::CreateConversationResponse>, Status> {
        self.enter().await?;
        let requested = request.into_inner().conversation.unwrap_or_default();
        let mut store = self.store();
        let known = store.conversations.get(&requested.id);
        let deduplicated = known.is_some();
        if known.is_some_and(|(known, _)| known.title != requested.title) {
            return Err(refusal(Code::AlreadyExists, "CONVERSATION_ID_TAKEN", "the id is taken"));
        }
        store.conversations.entry(requested.id.clone()).or_insert((requested.clone(), Vec::new()));
        Ok(Response::new(pb::CreateConversationResponse { conversation: Some(requested), deduplicated }))
    }

    async fn get_conversation(
        &self,
        request: Request<pb::GetConversationRequest>,
    ) -> Result<Response<pb::GetConversationResponse>, Status> {
        self.enter().await?;
        let store = self.store();
        let id = request.into_inner().id;
        let (conversation, _) = store.conversations.get(&id).ok_or_else(absent)?;
        let last_seq = self.read(&store, &id, None)?.last().map_or(0, |message| message.seq);
        let conversation = Conversation { last_seq, ..conversation.clone() };
        Ok(Response::new(pb::GetConversationResponse { conversation: Some(conversation) }))
    }
}

#[tonic::async_trait]
impl HistoryService for FakeHandler {
    async fn append_message(
        &self,
        request: Request<pb::AppendMessageRequest>,
    ) -> Result<Response<pb::AppendMessageResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let mut store = self.store();
        store.appends += 1;
        let every = self.faults.drop_response_every;
        let dropped = every > 0 && store.appends.is_multiple_of(every);
        let (_, messages) = store.conversations.get_mut(&request.conversation_id).ok_or_else(absent)?;
        let known = messages
            .iter()
            .find(|known| known.sender_id == request.sender_id && known.client_message_id == request.client_message_id);
        let deduplicated = known.is_some();
        let message = match known {
            Some(known) if known.body != request.body => {
                return Err(refusal(
                    Code::AlreadyExists,
                    "CLIENT_MESSAGE_ID_REUSED",
                    "the client message id was used before",
                ));
            }
            Some(known) => known.clone(),
            None => {
                let message = Message {
                    conversation_id: request.conversation_id,
                    seq: i64::try_from(messages.len()).unwrap() + 1,
                    sender_id: request.sender_id,
                    client_message_id: request.client_message_id,
                    body: request.body,
                    reply_to_seq: request.reply_to_seq,
                    attributes: request.attributes,
                    ..Default::default()
                };
                if message.reply_to_seq >= message.seq {
                    return Err(refusal(Code::FailedPrecondition, "REPLY_TARGET_NOT_FOUND", "not there yet"));
                }
                messages.push(message.clone());
                // By name: while conversations are created, it is unknown which will be the second.
                let is_faulty = message.conversation_id == "irc-b";
                push(&mut store, &message, self.faults.push.filter(|_| is_faulty));
                message
            }
        };
        if dropped {
            return Err(unavailable());
        }
        Ok(Response::new(pb::AppendMessageResponse { message: Some(message), deduplicated }))
    }

    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let all = self.read(&self.store(), &request.conversation_id, None)?;
        let last_seq = all.last().map_or(0, |message| message.seq);
        if request.min_seq > last_seq {
            return Err(refusal(Code::FailedPrecondition, "SEQ_AHEAD", "not there yet"));
        }
        let size = usize::try_from(request.page_size).unwrap();
        let number = |prefix| request.page_token.strip_prefix(prefix).map(|index| index.parse::<usize>().unwrap());
        let (begin, end) = match (number("after "), number("before "), request.anchor) {
            (Some(begin), ..) => (begin, all.len().min(begin + size)),
            (_, Some(end), _) => (end.saturating_sub(size), end),
            (.., Some(Anchor::AfterSeq(seq))) => {
                let begin = all.len().min(usize::try_from(seq).unwrap());
                (begin, all.len().min(begin + size))
            }
            (.., None) => (all.len().saturating_sub(size), all.len()),
            _ => return Err(Status::unimplemented("not implemented by the fake")),
        };
        let token = |more: bool, token: String| if more { token } else { String::new() };
        Ok(Response::new(pb::ListMessagesResponse {
            messages: all[begin..end].to_vec(),
            older_page_token: token(begin > 0, format!("before {begin}")),
            newer_page_token: token(end < all.len(), format!("after {end}")),
            last_seq,
            read_info: Some(ReadInfo {
                source: if end == all.len() { Source::Redis } else { Source::Postgres }.into(),
                ..Default::default()
            }),
        }))
    }

    async fn list_user_messages(
        &self,
        request: Request<pb::ListUserMessagesRequest>,
    ) -> Result<Response<pb::ListUserMessagesResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let store = self.store();
        let mut all = Vec::new();
        for id in store.conversations.keys() {
            all.extend(self.read(&store, id, Some(&request.user_id))?.into_iter().rev());
        }
        let begin: usize = request.page_token.parse().unwrap_or(0);
        let end = all.len().min(begin + usize::try_from(request.page_size).unwrap());
        let next_page_token = if end < all.len() { end.to_string() } else { String::new() };
        Ok(Response::new(pb::ListUserMessagesResponse { messages: all[begin..end].to_vec(), next_page_token }))
    }

    async fn get_message(&self, _: Request<pb::GetMessageRequest>) -> Result<Response<pb::GetMessageResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn batch_append_messages(
        &self,
        _: Request<pb::BatchAppendMessagesRequest>,
    ) -> Result<Response<pb::BatchAppendMessagesResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }
}
