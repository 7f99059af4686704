//! Direct access to the Redis of the service, to inspect and change its keys.

use std::ops::Deref;

use redis::{Script, cmd};
use tidings_devstack::RedisServer;
use tidings_devstack::testing::RedisInspector;

/// The publish script of the service.
const PUBLISH: &str = include_str!("../../src/channels/publish.lua");

/// A connection to the Redis of the service, which knows the names of its keys.
#[derive(Clone)]
pub(crate) struct BroadcastRedis {
    inspector: RedisInspector,
    prefix: String,
}

impl BroadcastRedis {
    pub(crate) async fn connect(redis: &RedisServer, prefix: &str) -> Self {
        Self { inspector: RedisInspector::connect(redis).await, prefix: format!("{prefix}:broadcast") }
    }

    /// Returns the key of a channel's numbering.
    pub(crate) fn meta_key(&self, channel: &str) -> String {
        format!("{}:m:{{{channel}}}", self.prefix)
    }

    /// Returns the key of a channel's messages.
    pub(crate) fn stream_key(&self, channel: &str) -> String {
        format!("{}:s:{{{channel}}}", self.prefix)
    }

    /// Returns the key of a request id.
    pub(crate) fn request_key(&self, channel: &str, id: &str) -> String {
        format!("{}:k:{{{channel}}}:{id}", self.prefix)
    }

    /// Returns the pub/sub channel of a channel.
    pub(crate) fn pubsub_channel(&self, channel: &str) -> String {
        format!("{}:p:{{{channel}}}", self.prefix)
    }

    /// Deletes a channel, as if Redis had lost its data.
    pub(crate) async fn delete_channel(&self, channel: &str) {
        self.run::<()>(cmd("DEL").arg(self.meta_key(channel)).arg(self.stream_key(channel))).await;
    }

    /// Publishes a text with the service's script, without the line that sends the notification: as
    /// if the notification were lost.
    pub(crate) async fn publish_without_notification(&self, channel: &str, text: &str) -> (String, i64) {
        let silent: Vec<_> = PUBLISH.lines().filter(|line| !line.starts_with("redis.call('PUBLISH'")).collect();
        assert_eq!(silent.len() + 1, PUBLISH.lines().count());
        let script = Script::new(&silent.join("\n"));
        let mut call = script.key(self.meta_key(channel));
        call.key(self.stream_key(channel)).arg("00000000000000aa").arg(body(channel, text)).arg("").arg(1000);
        call.arg(3_600_000).arg(3_600_000).arg(600_000).arg(self.pubsub_channel(channel));
        let (outcome, epoch, offset): (i64, String, i64) = call.invoke_async(&mut self.connection()).await.unwrap();
        assert_eq!(outcome, 0);
        (epoch, offset)
    }

    /// Sends a notification of a message, as if it arrived late.
    pub(crate) async fn notify(&self, channel: &str, epoch: &str, offset: i64, text: &str) {
        let time = 1_700_000_000_000_000_i64;
        let payload = [epoch.as_bytes(), &offset.to_be_bytes(), &time.to_be_bytes(), &body(channel, text)].concat();
        self.run::<()>(cmd("PUBLISH").arg(self.pubsub_channel(channel)).arg(payload)).await;
    }

    /// Kills all pub/sub connections.
    pub(crate) async fn kill_pubsub_connections(&self) {
        self.run::<i64>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
    }

    /// Returns the number of connections subscribed to a channel.
    pub(crate) async fn subscribers(&self, channel: &str) -> i64 {
        let (_, count): (String, i64) = self.run(cmd("PUBSUB").arg("NUMSUB").arg(self.pubsub_channel(channel))).await;
        count
    }

    /// Returns a field of a channel's numbering.
    pub(crate) async fn meta(&self, channel: &str, field: &str) -> Option<String> {
        self.run(cmd("HGET").arg(self.meta_key(channel)).arg(field)).await
    }
}

impl Deref for BroadcastRedis {
    type Target = RedisInspector;

    fn deref(&self) -> &RedisInspector {
        &self.inspector
    }
}

fn body(channel: &str, text: &str) -> Vec<u8> {
    use prost::Message as _;
    let message = tidings_proto::broadcast::Message {
        channel: channel.to_owned(),
        data: text.to_owned().into(),
        ..Default::default()
    };
    message.encode_to_vec()
}
