//! The first steps of a service: it binds its address and opens its Redis.

use std::net::{Ipv4Addr, SocketAddr};

use tidings_redis::{Permissions, Redis, Role};
use tidings_server::{Args, InvalidSetting};
use tokio::net::TcpListener;

use crate::error::ServeError;

/// Default distance of the admin port from the port for calls.
const ADMIN_PORT_OFFSET: u16 = 2000;

/// Checks the settings of the server, then binds the address of the service. Sets the admin address
/// if it was not given.
///
/// # Errors
/// [`ServeError::Setting`] or [`ServeError::Listen`].
pub async fn listen(address: SocketAddr, args: &mut Args) -> Result<TcpListener, ServeError> {
    args.security.validate(address)?;
    if args.admin_listen == Some(address) && address.port() != 0 {
        let problem = format!("'{address}': expected another address than that of --listen (TIDINGS_LISTEN)");
        return Err(InvalidSetting::new("--admin-listen", "TIDINGS_ADMIN_LISTEN", problem).into());
    }
    if args.admin_listen.is_none() && address.port() != 0 {
        let port = address.port().checked_add(ADMIN_PORT_OFFSET);
        args.admin_listen = port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
    }
    TcpListener::bind(address).await.map_err(|error| ServeError::Listen(address, error))
}

/// Starts to connect to the Redis of a service, whose name follows the prefix in every key. A Redis
/// that is unavailable, or refuses the user, is no error.
///
/// # Errors
/// [`ServeError::Redis`]; [`ServeError::Unusable`] if the server must not be used in this role.
pub async fn open_redis(
    args: &tidings_redis::Args,
    service: &str,
    role: Role,
    permissions: Permissions,
) -> Result<Redis, ServeError> {
    let redis = Redis::open_with(args, service, role, permissions).map_err(ServeError::Redis)?;
    redis.check_compatibility().await.map_err(ServeError::Unusable)?;
    Ok(redis)
}
