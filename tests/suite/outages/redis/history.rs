//! History under Redis faults: messages are appended to and read from Postgres, without a gap.

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

use super::fault::RedisFault;
use super::{FaultWorkload, own_stack, run_all_faults};
use crate::service::TestService;

struct AppendWorkload {
    service: TestService,
    histories: HistoryServiceClient<Channel>,
    /// Seq of the last acknowledged append.
    seq: i64,
}

impl AppendWorkload {
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

/// Asserts that a page holds the appended messages from seq `first` on, each once and in order.
fn assert_page_is(page: &ListMessagesResponse, first: i64) {
    for (message, seq) in page.messages.iter().zip(first..) {
        let text = Some(Body { content: Some(Content::Text(seq.to_string())) });
        assert_eq!((message.seq, &message.body), (seq, &text));
    }
}

impl FaultWorkload for AppendWorkload {
    const ENTRY: &str = "tidings.history.v1.HistoryService";
    const WITHOUT_REDIS: bool = true;

    fn service(&self) -> &TestService {
        &self.service
    }

    /// Appends a message and reads the newest page.
    async fn run_once(&mut self) -> Result<(), Failure> {
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
        assert_page_is(&page, (self.seq - 199).max(1));
        Ok(())
    }

    fn is_expected_refusal(_: RedisFault, _: bool, _: &Failure) -> bool {
        false
    }

    async fn is_healthy(&mut self) -> bool {
        let page = self.page(None, 0).await.unwrap();
        page.read_info.unwrap().source() == Source::Redis && page.last_seq == self.seq
    }

    async fn assert_nothing_lost(&mut self, _: RedisFault) {
        let mut read = 0;
        while read < self.seq {
            let page = self.page(Some(read), self.seq).await.unwrap();
            assert_page_is(&page, read + 1);
            read += i64::try_from(page.messages.len()).unwrap();
            assert!(!page.messages.is_empty(), "{read} of {}", self.seq);
        }
        assert_eq!(read, self.seq);
    }
}

/// No Redis fault makes an append or a read fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_appends_and_reads_without_gaps_under_redis_faults() {
    // No broadcast service is reachable: appended messages stay in the outbox.
    let unreachable = [("TIDINGS_BROADCAST_ADDR", "127.0.0.1:1")];
    let service = TestService::start_on(own_stack().await, "history", &[], &unreachable).await;
    let (kind, id) = (conversation::Kind::Open.into(), "lobby".to_owned());
    let conversation = Some(Conversation { id, kind, ..Conversation::default() });
    let request = CreateConversationRequest { conversation, ..CreateConversationRequest::default() };
    ConversationServiceClient::new(service.channel().await).create_conversation(request).await.unwrap();

    let workload = AppendWorkload { histories: HistoryServiceClient::new(service.channel().await), service, seq: 0 };
    run_all_faults(workload.service.stack(), workload).await;
}
