//! Messages are appended and read from Postgres meanwhile, without a gap.

use tidings_proto::history::body::Content;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::history::read_info::Source;
use tidings_proto::history::{
    AppendMessageRequest, Body, Conversation, CreateConversationRequest, ListMessagesRequest, ListMessagesResponse,
    conversation, list_messages_request,
};
use tidings_status::Failure;
use tonic::transport::Channel;

use super::faults::Fault;
use super::{Job, own_stack, through_all};
use crate::service::Service;

struct Talk {
    service: Service,
    histories: HistoryServiceClient<Channel>,
    /// The number that was acknowledged last.
    seq: i64,
}

impl Talk {
    async fn page(&mut self, after: Option<i64>, min_seq: i64) -> Result<ListMessagesResponse, Failure> {
        let request = ListMessagesRequest {
            conversation_id: "lobby".to_owned(),
            anchor: after.map(list_messages_request::Anchor::AfterSeq),
            page_size: 200,
            min_seq,
            ..ListMessagesRequest::default()
        };
        Ok(self.histories.list_messages(request).await.map_err(|status| Failure::from(&status))?.into_inner())
    }
}

/// # Panics
/// If a page is not what was appended, from this number on, each once and in order.
fn assert_is_what_was_appended(page: &ListMessagesResponse, first: i64) {
    for (message, seq) in page.messages.iter().zip(first..) {
        let text = Some(Body { content: Some(Content::Text(seq.to_string())) });
        assert_eq!((message.seq, &message.body), (seq, &text));
    }
}

impl Job for Talk {
    const ENTRY: &str = "tidings.history.v1.HistoryService";
    const WITHOUT_REDIS: bool = true;

    fn service(&self) -> &Service {
        &self.service
    }

    /// An append, and the newest page with it.
    async fn work(&mut self) -> Result<(), Failure> {
        let text = (self.seq + 1).to_string();
        let request = AppendMessageRequest {
            conversation_id: "lobby".to_owned(),
            sender_id: "ada".to_owned(),
            client_message_id: format!("m-{text}"),
            body: Some(Body { content: Some(Content::Text(text)) }),
            ..AppendMessageRequest::default()
        };
        let appended = self.histories.append_message(request).await.map_err(|status| Failure::from(&status))?;
        self.seq += 1;
        let appended = appended.into_inner();
        assert_eq!((appended.message.unwrap().seq, appended.deduplicated), (self.seq, false));

        let page = self.page(None, self.seq).await?;
        assert_eq!(page.last_seq, self.seq);
        assert_is_what_was_appended(&page, (self.seq - 199).max(1));
        Ok(())
    }

    fn may_refuse(_: Fault, _: bool, _: &Failure) -> bool {
        false
    }

    async fn is_well(&mut self) -> bool {
        let page = self.page(None, 0).await.unwrap();
        page.read_info.unwrap().source() == Source::Redis && page.last_seq == self.seq
    }

    async fn account(&mut self, _: Fault) {
        let mut read = 0;
        while read < self.seq {
            let page = self.page(Some(read), self.seq).await.unwrap();
            assert_is_what_was_appended(&page, read + 1);
            read += i64::try_from(page.messages.len()).unwrap();
            assert!(!page.messages.is_empty(), "{read} of {}", self.seq);
        }
        assert_eq!(read, self.seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_appends_and_reads_without_a_gap_whatever_happens_to_redis() {
    // Nobody to publish to: what is appended waits in the outbox.
    let nobody = [("TIDINGS_BROADCAST_ADDR", "127.0.0.1:1")];
    let service = Service::on(own_stack().await, "history", &[], &nobody).await;
    let (kind, id) = (conversation::Kind::Open.into(), "lobby".to_owned());
    let conversation = Some(Conversation { id, kind, ..Conversation::default() });
    let request = CreateConversationRequest { conversation, ..CreateConversationRequest::default() };
    ConversationServiceClient::new(service.channel().await).create_conversation(request).await.unwrap();

    let talk = Talk { histories: HistoryServiceClient::new(service.channel().await), service, seq: 0 };
    through_all(talk.service.stack(), talk).await;
}
