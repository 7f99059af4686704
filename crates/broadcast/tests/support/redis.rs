//! A hand in Redis: looks at what the service keeps there, and takes it away.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Script, cmd};
use tidings_devstack::Redis;

/// The script that publishes, as the service has it.
const PUBLISH: &str = include_str!("../../src/channels/publish.lua");

/// One connection to the Redis of a service, which knows the names of its keys.
#[derive(Clone)]
pub(crate) struct Tampering {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Tampering {
    pub(crate) async fn connect(redis: &Redis, prefix: &str) -> Self {
        let client = Client::open(redis.url()).unwrap();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        Self { connection, prefix: format!("{prefix}:broadcast") }
    }

    /// The key of the numbering of a channel.
    pub(crate) fn meta_key(&self, channel: &str) -> String {
        format!("{}:m:{{{channel}}}", self.prefix)
    }

    /// The key of the messages of a channel.
    pub(crate) fn stream_key(&self, channel: &str) -> String {
        format!("{}:s:{{{channel}}}", self.prefix)
    }

    /// The key of a request id.
    pub(crate) fn request_key(&self, channel: &str, id: &str) -> String {
        format!("{}:k:{{{channel}}}:{id}", self.prefix)
    }

    /// The pub/sub channel of a channel.
    pub(crate) fn ear(&self, channel: &str) -> String {
        format!("{}:p:{{{channel}}}", self.prefix)
    }

    /// Forgets a channel, as a Redis does that loses its data.
    pub(crate) async fn forget(&self, channel: &str) {
        self.run::<()>(cmd("DEL").arg(self.meta_key(channel)).arg(self.stream_key(channel))).await;
    }

    /// Takes everything away.
    pub(crate) async fn flush_all(&self) {
        self.run::<()>(&cmd("FLUSHALL")).await;
    }

    /// Publishes a text by the script of the service, but for the line that tells those who listen: as if the message
    /// got lost on its way.
    pub(crate) async fn publish_unheard(&self, channel: &str, text: &str) -> (String, i64) {
        let silent: Vec<_> = PUBLISH.lines().filter(|line| !line.starts_with("redis.call('PUBLISH'")).collect();
        assert_eq!(silent.len() + 1, PUBLISH.lines().count());
        let script = Script::new(&silent.join("\n"));
        let mut call = script.key(self.meta_key(channel));
        call.key(self.stream_key(channel)).arg("00000000000000aa").arg(body(channel, text)).arg("").arg(1000);
        call.arg(3_600_000).arg(3_600_000).arg(600_000).arg(self.ear(channel));
        let (outcome, epoch, offset): (i64, String, i64) =
            call.invoke_async(&mut self.connection.clone()).await.unwrap();
        assert_eq!(outcome, 0);
        (epoch, offset)
    }

    /// Tells those who listen of a message, as if it came late.
    pub(crate) async fn tell(&self, channel: &str, epoch: &str, offset: i64, text: &str) {
        let time = 1_700_000_000_000_000_i64;
        let told = [epoch.as_bytes(), &offset.to_be_bytes(), &time.to_be_bytes(), &body(channel, text)].concat();
        self.run::<()>(cmd("PUBLISH").arg(self.ear(channel)).arg(told)).await;
    }

    /// Cuts all connections that listen.
    pub(crate) async fn cut_pubsub(&self) {
        self.run::<i64>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
    }

    /// How many connections listen to a channel.
    pub(crate) async fn listeners(&self, channel: &str) -> i64 {
        let (_, count): (String, i64) = self.run(cmd("PUBSUB").arg("NUMSUB").arg(self.ear(channel))).await;
        count
    }

    /// A field of the numbering of a channel.
    pub(crate) async fn meta(&self, channel: &str, field: &str) -> Option<String> {
        self.run(cmd("HGET").arg(self.meta_key(channel)).arg(field)).await
    }

    /// Any command.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.unwrap()
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
