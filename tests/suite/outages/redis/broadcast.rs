//! Broadcast under Redis faults: publishes are refused in time, streams stay open, and subscribers
//! get a reset for lost messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{ChannelStart, PublishRequest, SubscribeRequest, SubscribeResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::fault::RedisFault;
use super::{FaultWorkload, PAUSE, SLACK, own_stack, run_all_faults};
use crate::service::{MAX_WAIT, TestService};

/// Messages and resets that a subscriber has received.
#[derive(Default)]
struct ReceivedMessages {
    /// Epoch and offset of the last message; `None` after a reset.
    last: Option<(String, i64)>,
    /// Numbers of all messages.
    numbers: BTreeSet<u64>,
    /// Number of resets.
    resets: u64,
    /// Reason for which the stream has ended, if it has.
    ended: Option<String>,
}

impl ReceivedMessages {
    /// # Panics
    /// If a message arrives twice, or is missing without a gap or reset.
    fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Messages(messages) => {
                for message in messages.messages {
                    if let Some((epoch, offset)) = &self.last {
                        assert_eq!(
                            (&message.epoch, message.offset),
                            (epoch, offset + 1),
                            "a message was skipped or repeated"
                        );
                    }
                    self.last = Some((message.epoch, message.offset));
                    let number = str::from_utf8(&message.data).unwrap().parse().unwrap();
                    assert!(self.numbers.insert(number), "message {number} arrived twice");
                }
            }
            Frame::Reset(_) => {
                self.resets += 1;
                self.last = None;
            }
            Frame::CaughtUp(_) | Frame::Heartbeat(_) => {}
            Frame::Gap(_) | Frame::Goodbye(_) => panic!("{frame:?}"),
        }
    }
}

struct PublishWorkload {
    service: TestService,
    broadcasts: BroadcastServiceClient<Channel>,
    received: Arc<Mutex<ReceivedMessages>>,
    /// Number of publishes tried; each publishes its number.
    attempts: u64,
    /// Acknowledged publishes, with the number of resets at that time.
    published: BTreeMap<u64, u64>,
    /// Publishes that the service reported as not done.
    unpublished: BTreeSet<u64>,
}

impl PublishWorkload {
    fn has_received(&self, number: u64) -> bool {
        let received = self.received.lock().unwrap();
        assert_eq!(received.ended, None, "streams stay open");
        received.numbers.contains(&number)
    }
}

impl FaultWorkload for PublishWorkload {
    const ENTRY: &str = "tidings.broadcast.v1.BroadcastService";
    const WITHOUT_REDIS: bool = false;

    fn service(&self) -> &TestService {
        &self.service
    }

    /// Publishes one message.
    async fn run_once(&mut self) -> Result<(), Failure> {
        self.attempts += 1;
        let data = self.attempts.to_string().into();
        let request = PublishRequest { channel: "lobby".to_owned(), data, ..PublishRequest::default() };
        match self.broadcasts.publish(request).await {
            Ok(_) => {
                let resets = self.received.lock().unwrap().resets;
                self.published.insert(self.attempts, resets);
                Ok(())
            }
            Err(status) => {
                let failure = Failure::from(&status);
                match failure.metadata.get("published").map(String::as_str) {
                    Some("no") => drop(self.unpublished.insert(self.attempts)),
                    published => assert_eq!(published, Some("unknown"), "{failure}"),
                }
                Err(failure)
            }
        }
    }

    fn is_expected_refusal(fault: RedisFault, _: bool, failure: &Failure) -> bool {
        let unavailable = (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STATE_AWAY");
        unavailable && failure.retry_after.is_some() && (fault.makes_unavailable() || fault == RedisFault::Cut)
    }

    /// The last message arrives within [`PAUSE`].
    async fn is_healthy(&mut self) -> bool {
        sleep(PAUSE).await;
        self.has_received(self.attempts)
    }

    async fn assert_nothing_lost(&mut self, fault: RedisFault) {
        let (last, started) = (self.attempts, Instant::now());
        while !self.has_received(last) {
            assert!(started.elapsed() < MAX_WAIT + SLACK, "message {last} does not arrive");
            sleep(PAUSE).await;
        }
        let received = self.received.lock().unwrap();
        let missing = self.published.iter().filter(|(number, _)| !received.numbers.contains(number));
        for (number, resets) in missing {
            assert!(fault.loses_data() && received.resets > *resets, "message {number} is missing without a reset");
        }
        assert!(!fault.loses_data() || received.resets > 0, "redis {fault}");
        assert_eq!(
            self.unpublished.intersection(&received.numbers).next(),
            None,
            "a message arrived although its publish reported that it was not done"
        );
        drop(received);
        self.published.clear();
    }
}

/// Records the frames of a stream until it ends.
async fn receive(mut frames: Streaming<SubscribeResponse>, received: Arc<Mutex<ReceivedMessages>>) {
    let ended = loop {
        match frames.message().await {
            Ok(Some(SubscribeResponse { frame: Some(frame) })) => received.lock().unwrap().receive(frame),
            Ok(None) => break "end of stream".to_owned(),
            other => break format!("{other:?}"),
        }
    };
    received.lock().unwrap().ended = Some(ended);
}

/// Under every Redis fault, publishes fail in time and subscribers get a reset for lost messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcast_refuses_in_time_and_reports_lost_messages() {
    let service = TestService::start_on(own_stack().await, "broadcast", &[], &[]).await;
    let mut broadcasts = BroadcastServiceClient::new(service.channel().await);
    let request = SubscribeRequest { channels: vec![ChannelStart { channel: "lobby".to_owned(), start: None }] };
    let (received, frames) =
        (Arc::<Mutex<ReceivedMessages>>::default(), broadcasts.subscribe(request).await.unwrap().into_inner());
    tokio::spawn(receive(frames, Arc::clone(&received)));

    let (published, unpublished) = (BTreeMap::new(), BTreeSet::new());
    let channels = PublishWorkload { service, broadcasts, received, attempts: 0, published, unpublished };
    run_all_faults(channels.service.stack(), channels).await;
}
