//! The same things with nothing but Redis, on connections as Tidings' services have them.

use std::sync::Arc;

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Client, RedisError, Script};
use tidings::load::{Call, Fanout, Fault, Turn};

use crate::contests::{CALLERS, SUBSCRIBERS};

/// Connections that the callers share, as those of the load generator.
const CONNECTIONS: usize = 4;
/// As many bytes as a message, and as a user, has in Tidings' Redis.
const MESSAGE: usize = 150;
const USER: usize = 180;

const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Redis alone.
pub(crate) struct RawRedis(Client);

impl RawRedis {
    pub(crate) fn new(url: &str) -> Self {
        Self(Client::open(url).unwrap())
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.0.get_multiplexed_async_connection().await.unwrap()
    }

    /// A call on one of the connections.
    fn calls<F>(&self, call: impl Fn(MultiplexedConnection, Turn) -> F + Send + Sync + 'static) -> Call
    where
        F: Future<Output = Result<(), RedisError>> + Send + 'static,
    {
        let client = self.0.clone();
        let connect = || client.get_multiplexed_async_connection();
        let connections = tokio::task::block_in_place(|| {
            let connect = async { futures_util::future::try_join_all((0..CONNECTIONS).map(|_| connect())).await };
            tokio::runtime::Handle::current().block_on(connect)
        });
        let connections = connections.unwrap();
        Arc::new(move |turn| {
            let call = call(connections[turn.caller % CONNECTIONS].clone(), turn);
            Box::pin(async move { call.await.map(|()| 1).map_err(fault) })
        })
    }

    /// As many values as there are users.
    async fn users(&self) {
        let mut connection = self.connection().await;
        for number in 0..1000 {
            let () = connection.set(format!("raw:user:{number}"), vec![b'x'; USER]).await.unwrap();
        }
    }

    /// Reads a hundred of a thousand values.
    pub(crate) async fn get_many(&self) -> Call {
        self.users().await;
        self.calls(|mut connection, turn| async move {
            let keys: Vec<_> =
                (0..100).map(|place| format!("raw:user:{}", (turn.number * 100 + place) % 1000)).collect();
            let values: Vec<Vec<u8>> = connection.mget(keys).await?;
            assert_eq!(values.len(), 100);
            Ok(())
        })
    }

    /// Reads one of a thousand values.
    pub(crate) async fn get(&self) -> Call {
        self.users().await;
        self.calls(|mut connection, turn| async move {
            let value: Vec<u8> = connection.get(format!("raw:user:{}", turn.number % 1000)).await?;
            assert_eq!(value.len(), USER);
            Ok(())
        })
    }

    /// Reads the newest hundred of a list.
    pub(crate) async fn page(&self) -> Call {
        let mut connection = self.connection().await;
        for number in 0..20 {
            let messages = vec![vec![b'x'; MESSAGE]; 400];
            let () = connection.rpush(format!("raw:tail:{number}"), messages).await.unwrap();
        }
        self.calls(|mut connection, turn| async move {
            let page: Vec<Vec<u8>> = connection.lrange(format!("raw:tail:{}", turn.number % 20), -100, -1).await?;
            assert_eq!(page.len(), 100);
            Ok(())
        })
    }

    /// Takes a lock of the caller's own, and releases it.
    pub(crate) fn lock(&self) -> Call {
        let release = Arc::new(Script::new(RELEASE));
        self.calls(move |mut connection, turn| {
            let release = Arc::clone(&release);
            async move {
                let (key, owner) = (format!("raw:lock:{}", turn.caller), turn.number);
                let set = redis::cmd("SET").arg(&key).arg(owner).arg("NX").arg("PX").arg(10_000).to_owned();
                let () = set.query_async(&mut connection).await?;
                release.key(&key).arg(owner).invoke_async(&mut connection).await
            }
        })
    }

    /// Publishes, until the last subscriber has it.
    pub(crate) async fn fanout(&self) -> Call {
        let fanout = Arc::new(Fanout::new(CALLERS, SUBSCRIBERS));
        for _ in 0..SUBSCRIBERS {
            let mut listening = self.0.get_async_pubsub().await.unwrap();
            listening.subscribe("raw:channel").await.unwrap();
            let fanout = Arc::clone(&fanout);
            tokio::spawn(async move {
                let mut messages = listening.into_on_message();
                while let Some(message) = messages.next().await {
                    fanout.got(message.get_payload_bytes());
                }
            });
        }
        let connection = self.connection().await;
        Arc::new(move |turn| {
            let (fanout, mut connection) = (Arc::clone(&fanout), connection.clone());
            Box::pin(async move {
                let publish = |data: Vec<u8>| async move {
                    let published: Result<(), _> = connection.publish("raw:channel", data).await;
                    published.map_err(fault)
                };
                fanout.deliver(turn, vec![b'x'; 100], publish).await.map(|_| 1)
            })
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn fault(error: RedisError) -> Fault {
    Fault::answer(error.to_string())
}
