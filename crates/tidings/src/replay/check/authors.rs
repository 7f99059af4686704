//! What each user is said to have written equals that nick's lines.

use std::collections::{BTreeMap, HashMap};

use tidings_proto::history::ListUserMessagesRequest;
use tidings_proto::history::list_user_messages_request::Scope;

use crate::replay::difference::Difference;
use crate::replay::findings::Findings;
use crate::replay::plan::{Conversation, Message};
use crate::replay::progress::Done;
use crate::replay::services::{Error, Services};

const DURING: &str = "read by author";

/// What one user sent, by conversation.
pub(in crate::replay) type Authored<'a> = BTreeMap<&'a str, Vec<&'a Message>>;

/// Sorts what was sent by who sent it.
pub(in crate::replay) fn authors<'a>(sent: &[&'a Conversation]) -> BTreeMap<&'a str, Authored<'a>> {
    let mut authors: BTreeMap<&str, Authored<'_>> = BTreeMap::new();
    for conversation in sent {
        for message in &conversation.messages {
            let authored = authors.entry(&message.request.sender_id).or_default();
            authored.entry(&conversation.id).or_default().push(message);
        }
    }
    authors
}

/// Compares the messages of one user in the `conversations` of this replay. Newest first, each conversation by itself:
/// how conversations that were sent side by side mix is nobody's promise.
pub(in crate::replay) async fn check(
    services: &Services,
    conversations: &HashMap<&str, &Conversation>,
    user_id: &str,
    mut authored: Authored<'_>,
    page_size: i32,
    done: &Done,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let mut request = ListUserMessagesRequest {
        user_id: user_id.to_owned(),
        scope: Scope::Authored.into(),
        page_size,
        ..Default::default()
    };
    loop {
        let page = services.authored(&request).await?;
        for message in &page.messages {
            let Some(conversation) = conversations.get(message.conversation_id.as_str()) else { continue };
            findings.tally.read_back += 1;
            done.add(1);
            let expected = authored.get_mut(conversation.id.as_str()).and_then(Vec::pop);
            if let Some(difference) = Difference::find(conversation, expected, Some(message)) {
                findings.differ(Some(difference.during(DURING)));
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
        findings.differ(difference.map(|difference| difference.during(DURING)));
    }
    Ok(findings)
}
