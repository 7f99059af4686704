//! Publishes are refused in time meanwhile, streams stay open, and what a subscriber misses it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{ChannelStart, PublishRequest, SubscribeRequest, SubscribeResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::faults::Fault;
use super::{BUSY, Job, PAUSE, own_stack, through_all};
use crate::service::{SOON, Service};

/// What a subscriber has seen.
#[derive(Default)]
struct Seen {
    /// The epoch and offset of the last message.
    last: Option<(String, i64)>,
    /// The numbers of all messages.
    numbers: BTreeSet<u64>,
    /// How often it was told that the channel begins anew.
    resets: u64,
    /// Why it goes on no more.
    ended: Option<String>,
}

impl Seen {
    /// # Panics
    /// If a message comes twice, or one is missing and nothing was said.
    fn see(&mut self, frame: Frame) {
        match frame {
            Frame::Messages(messages) => {
                for message in messages.messages {
                    if let Some((epoch, offset)) = &self.last {
                        assert_eq!((&message.epoch, message.offset), (epoch, offset + 1), "not what follows");
                    }
                    self.last = Some((message.epoch, message.offset));
                    let number = str::from_utf8(&message.data).unwrap().parse().unwrap();
                    assert!(self.numbers.insert(number), "{number} came twice");
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

struct Channels {
    service: Service,
    broadcasts: BroadcastServiceClient<Channel>,
    seen: Arc<Mutex<Seen>>,
    /// How many publishes were tried: each says its number.
    tried: u64,
    /// Those that were acknowledged, with the number of resets by then.
    published: BTreeMap<u64, u64>,
    /// Those of which it was said that they were not published.
    unpublished: BTreeSet<u64>,
}

impl Channels {
    fn has_seen(&self, number: u64) -> bool {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.ended, None, "streams stay open");
        seen.numbers.contains(&number)
    }
}

impl Job for Channels {
    const ENTRY: &str = "tidings.broadcast.v1.BroadcastService";
    const WITHOUT_REDIS: bool = false;

    fn service(&self) -> &Service {
        &self.service
    }

    /// A publish.
    async fn work(&mut self) -> Result<(), Failure> {
        self.tried += 1;
        let data = self.tried.to_string().into();
        let request = PublishRequest { channel: "lobby".to_owned(), data, ..PublishRequest::default() };
        match self.broadcasts.publish(request).await {
            Ok(_) => {
                let resets = self.seen.lock().unwrap().resets;
                self.published.insert(self.tried, resets);
                Ok(())
            }
            Err(status) => {
                let failure = Failure::from(&status);
                match failure.metadata.get("published").map(String::as_str) {
                    Some("no") => drop(self.unpublished.insert(self.tried)),
                    published => assert_eq!(published, Some("unknown"), "{failure}"),
                }
                Err(failure)
            }
        }
    }

    fn may_refuse(fault: Fault, _: bool, failure: &Failure) -> bool {
        let away = (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STATE_AWAY");
        away && failure.retry_after.is_some() && (fault.takes_away() || fault == Fault::Cut)
    }

    /// What was just published arrives at once.
    async fn is_well(&mut self) -> bool {
        sleep(PAUSE).await;
        self.has_seen(self.tried)
    }

    async fn account(&mut self, fault: Fault) {
        let (last, begun) = (self.tried, Instant::now());
        while !self.has_seen(last) {
            assert!(begun.elapsed() < SOON + BUSY, "{last} does not arrive");
            sleep(PAUSE).await;
        }
        let seen = self.seen.lock().unwrap();
        let missing = self.published.iter().filter(|(number, _)| !seen.numbers.contains(number));
        for (number, resets) in missing {
            assert!(fault.loses_data() && seen.resets > *resets, "{number} is missing and nothing was said");
        }
        assert!(!fault.loses_data() || seen.resets > 0, "redis {fault}");
        assert_eq!(self.unpublished.intersection(&seen.numbers).next(), None, "it was said not to be published");
        drop(seen);
        self.published.clear();
    }
}

/// Sees what a stream brings, until it ends.
async fn see(mut frames: Streaming<SubscribeResponse>, seen: Arc<Mutex<Seen>>) {
    let ended = loop {
        match frames.message().await {
            Ok(Some(SubscribeResponse { frame: Some(frame) })) => seen.lock().unwrap().see(frame),
            Ok(None) => break "it ended".to_owned(),
            other => break format!("{other:?}"),
        }
    };
    seen.lock().unwrap().ended = Some(ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcast_refuses_in_time_and_tells_what_is_lost_whatever_happens_to_redis() {
    let service = Service::on(own_stack().await, "broadcast", &[], &[]).await;
    let mut broadcasts = BroadcastServiceClient::new(service.channel().await);
    let request = SubscribeRequest { channels: vec![ChannelStart { channel: "lobby".to_owned(), start: None }] };
    let (seen, frames) = (Arc::<Mutex<Seen>>::default(), broadcasts.subscribe(request).await.unwrap().into_inner());
    tokio::spawn(see(frames, Arc::clone(&seen)));

    let (published, unpublished) = (BTreeMap::new(), BTreeSet::new());
    let channels = Channels { service, broadcasts, seen, tried: 0, published, unpublished };
    through_all(channels.service.stack(), channels).await;
}
