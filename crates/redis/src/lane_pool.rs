//! The pool that opens the connections of lanes, with the current credentials.

use deadpool_redis::{Connection as PoolConnection, Manager, Pool, PoolError};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};

use crate::credentials::RedisCredentials;

/// Opens the connections of all lanes to one server.
pub(crate) struct LanePool {
    credentials: RedisCredentials,
    config: AsyncConnectionConfig,
    lanes: usize,
    /// The pool for the credentials with this number.
    built: Mutex<Option<(u64, Pool)>>,
}

impl LanePool {
    pub(crate) fn new(credentials: RedisCredentials, config: AsyncConnectionConfig, lanes: usize) -> Self {
        Self { credentials, config, lanes, built: Mutex::new(None) }
    }

    /// Returns the user of the connections.
    pub(crate) fn user(&self) -> String {
        self.credentials.user()
    }

    /// Opens a connection. It is never returned to the pool: it is broken when its lane ends, and
    /// calls in flight must not keep its slot.
    pub(crate) async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        match self.pool().await?.get().await {
            Ok(connection) => Ok(PoolConnection::take(connection)),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err((ErrorKind::Io, "no connection from the pool", error.to_string()).into()),
        }
    }

    async fn pool(&self) -> Result<Pool, RedisError> {
        let (number, info) = self.credentials.current().await?;
        let mut built = self.built.lock();
        if let Some((of, pool)) = &*built
            && *of == number
        {
            return Ok(pool.clone());
        }
        let manager = Manager::new_with_config(info, self.config.clone())?;
        let pool = Pool::builder(manager).max_size(self.lanes).build();
        let pool = pool.map_err(|_| RedisError::from((ErrorKind::InvalidClientConfig, "no runtime for the pool")))?;
        *built = Some((number, pool.clone()));
        Ok(pool)
    }
}
