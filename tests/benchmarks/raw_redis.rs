//! The same operations by Redis alone, over multiplexed connections like those of the services.

use std::sync::Arc;

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Client, RedisError, Script};
use tidings_load::{BenchCall, CallFailure, CallSlot, Fanout};

use crate::plan::{CALLERS, SUBSCRIBERS};

/// Connections shared by the callers: as many as the load generator has to a service.
const CONNECTIONS: usize = 4;
/// Size in bytes of a message in the Redis of Tidings.
const MESSAGE_SIZE: usize = 150;
/// Size in bytes of a user in the Redis of Tidings.
const USER_SIZE: usize = 180;

const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The Redis of the installation.
pub(crate) struct RawRedis(Client);

impl RawRedis {
    pub(crate) fn new(url: &str) -> Self {
        Self(Client::open(url).unwrap())
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.0.get_multiplexed_async_connection().await.unwrap()
    }

    /// Returns a call over one of the shared connections.
    fn call<F>(&self, call: impl Fn(MultiplexedConnection, CallSlot) -> F + Send + Sync + 'static) -> BenchCall
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
        Arc::new(move |slot| {
            let call = call(connections[slot.caller % CONNECTIONS].clone(), slot);
            Box::pin(async move { call.await.map(|()| 1).map_err(failure) })
        })
    }

    /// Stores a value for each of 1,000 users.
    async fn store_users(&self) {
        let mut connection = self.connection().await;
        for number in 0..1000 {
            let () = connection.set(format!("raw:user:{number}"), vec![b'x'; USER_SIZE]).await.unwrap();
        }
    }

    /// Returns a call that reads 100 of 1,000 values.
    pub(crate) async fn get_many(&self) -> BenchCall {
        self.store_users().await;
        self.call(|mut connection, slot| async move {
            let keys: Vec<_> =
                (0..100).map(|index| format!("raw:user:{}", (slot.number * 100 + index) % 1000)).collect();
            let values: Vec<Vec<u8>> = connection.mget(keys).await?;
            assert_eq!(values.len(), 100);
            Ok(())
        })
    }

    /// Returns a call that reads one of 1,000 values.
    pub(crate) async fn get(&self) -> BenchCall {
        self.store_users().await;
        self.call(|mut connection, slot| async move {
            let value: Vec<u8> = connection.get(format!("raw:user:{}", slot.number % 1000)).await?;
            assert_eq!(value.len(), USER_SIZE);
            Ok(())
        })
    }

    /// Returns a call that reads the newest 100 messages of a list.
    pub(crate) async fn page(&self) -> BenchCall {
        let mut connection = self.connection().await;
        for number in 0..20 {
            let messages = vec![vec![b'x'; MESSAGE_SIZE]; 400];
            let () = connection.rpush(format!("raw:tail:{number}"), messages).await.unwrap();
        }
        self.call(|mut connection, slot| async move {
            let page: Vec<Vec<u8>> = connection.lrange(format!("raw:tail:{}", slot.number % 20), -100, -1).await?;
            assert_eq!(page.len(), 100);
            Ok(())
        })
    }

    /// Returns a call that acquires a lock of its caller and releases it.
    pub(crate) fn lock(&self) -> BenchCall {
        let release = Arc::new(Script::new(RELEASE));
        self.call(move |mut connection, slot| {
            let release = Arc::clone(&release);
            async move {
                let (key, owner) = (format!("raw:lock:{}", slot.caller), slot.number);
                let set = redis::cmd("SET").arg(&key).arg(owner).arg("NX").arg("PX").arg(10_000).to_owned();
                let () = set.query_async(&mut connection).await?;
                release.key(&key).arg(owner).invoke_async(&mut connection).await
            }
        })
    }

    /// Returns a call that publishes a message and waits until every subscriber has it.
    pub(crate) async fn fanout(&self) -> BenchCall {
        let fanout = Arc::new(Fanout::new(CALLERS, SUBSCRIBERS));
        for _ in 0..SUBSCRIBERS {
            let mut pubsub = self.0.get_async_pubsub().await.unwrap();
            pubsub.subscribe("raw:channel").await.unwrap();
            let fanout = Arc::clone(&fanout);
            tokio::spawn(async move {
                let mut messages = pubsub.into_on_message();
                while let Some(message) = messages.next().await {
                    fanout.received(message.get_payload_bytes());
                }
            });
        }
        let connection = self.connection().await;
        Arc::new(move |slot| {
            let (fanout, mut connection) = (Arc::clone(&fanout), connection.clone());
            Box::pin(async move {
                let publish = |data: Vec<u8>| async move {
                    let published: Result<(), _> = connection.publish("raw:channel", data).await;
                    published.map_err(failure)
                };
                fanout.deliver(slot, vec![b'x'; 100], publish).await.map(|_| 1)
            })
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn failure(error: RedisError) -> CallFailure {
    CallFailure::unexpected(error.to_string())
}
