//! Checks that the messages listed for each user equal the lines of that nick.

use std::collections::{BTreeMap, HashMap};

use tidings_proto::history::ListUserMessagesRequest;
use tidings_proto::history::list_user_messages_request::Scope;

use crate::replay::clients::{Error, ServiceClients};
use crate::replay::difference::Difference;
use crate::replay::findings::ReplayFindings;
use crate::replay::plan::{PlannedConversation, PlannedMessage};
use crate::replay::progress::DoneCount;

const PHASE: &str = "read by author";

/// The messages of one user, by conversation id.
pub(in crate::replay) type Authored<'a> = BTreeMap<&'a str, Vec<&'a PlannedMessage>>;

/// Groups the sent messages by user id.
pub(in crate::replay) fn authors<'a>(sent: &[&'a PlannedConversation]) -> BTreeMap<&'a str, Authored<'a>> {
    let mut authors: BTreeMap<&str, Authored<'_>> = BTreeMap::new();
    for conversation in sent {
        for message in &conversation.messages {
            let authored = authors.entry(&message.request.sender_id).or_default();
            authored.entry(&conversation.id).or_default().push(message);
        }
    }
    authors
}

/// Compares the messages listed for one user with the sent ones, newest first. Only the order
/// within each conversation is compared: the contract promises none across conversations.
pub(in crate::replay) async fn check(
    clients: &ServiceClients,
    conversations: &HashMap<&str, &PlannedConversation>,
    user_id: &str,
    mut authored: Authored<'_>,
    page_size: i32,
    done: &DoneCount,
) -> Result<ReplayFindings, Error> {
    let mut findings = ReplayFindings::default();
    let mut request = ListUserMessagesRequest {
        user_id: user_id.to_owned(),
        scope: Scope::Authored.into(),
        page_size,
        ..Default::default()
    };
    loop {
        let page = clients.authored(&request).await?;
        for message in &page.messages {
            let Some(conversation) = conversations.get(message.conversation_id.as_str()) else { continue };
            findings.counts.read_back += 1;
            done.add(1);
            let expected = authored.get_mut(conversation.id.as_str()).and_then(Vec::pop);
            if let Some(difference) = Difference::find(conversation, expected, Some(message)) {
                findings.record(Some(difference.in_phase(PHASE)));
                return Ok(findings);
            }
        }
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            break;
        }
        request.page_token = page.next_page_token;
    }
    for (id, missing) in authored {
        let difference = conversations
            .get(id)
            .and_then(|conversation| Difference::find(conversation, missing.last().copied(), None));
        findings.record(difference.map(|difference| difference.in_phase(PHASE)));
    }
    Ok(findings)
}
