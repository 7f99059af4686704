//! A direct connection to Redis, beside those of the code under test.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, cmd};

use crate::redis::RedisServer;

/// A connection that inspects and changes the data of a test. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RedisInspector {
    connection: MultiplexedConnection,
}

impl RedisInspector {
    /// Connects to a server. A response may take as long as it likes.
    ///
    /// # Panics
    ///
    /// If the server does not accept the connection.
    pub async fn connect(server: &RedisServer) -> Self {
        let connected = async {
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            Client::open(server.url())?.get_multiplexed_async_connection_with_config(&config).await
        };
        Self { connection: expect(connected.await) }
    }

    /// Runs a command.
    ///
    /// # Panics
    ///
    /// If the command fails, or its reply has another type.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        expect(command.query_async(&mut self.connection()).await)
    }

    /// Deletes all keys of the server.
    ///
    /// # Panics
    ///
    /// If the command fails.
    pub async fn flush_all(&self) {
        self.run::<()>(&cmd("FLUSHALL")).await;
    }

    /// Returns the connection, for scripts and pipelines.
    pub fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

fn expect<T>(result: RedisResult<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
