//! Addresses of a host name: tried side by side, so that one that drops packets costs 250 ms.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Head start of an address before the next one is tried too, as RFC 8305 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// Returns the first address that accepts a TCP connection. Each address gets a head start over the
/// next one; a failed address ends its head start. Has no limit of its own.
///
/// # Errors
/// The failure of each address, if all fail.
pub(crate) async fn first_reachable(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    let mut rest = addresses.iter().copied();
    loop {
        if let Some(address) = rest.next() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        tokio::select! {
            attempt = attempts.join_next() => match attempt {
                Some(Ok((address, Ok(_)))) => return Ok(address),
                Some(Ok((address, Err(error)))) => failures.push(format!("{address}: {error}")),
                Some(Err(_)) => {} // ends with its runtime
                None => return Err(failures.join("; ")),
            },
            () = sleep(HEAD_START), if rest.len() > 0 => {}
        }
    }
}

/// Returns the addresses of a host name.
///
/// # Errors
/// The failure of the look-up, in words.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let failed = |error: io::Error| format!("cannot resolve host name '{host}': {error}");
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    if found.is_empty() { Err(format!("host name '{host}' has no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// A listener with a full queue, whose kernel drops further packets.
    struct BlackHole {
        listener: TcpListener,
        _queued: Vec<TcpStream>,
    }

    impl BlackHole {
        async fn start() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
                queued.push(stream);
            }
            Self { listener, _queued: queued }
        }

        fn address(&self) -> SocketAddr {
            self.listener.local_addr().unwrap()
        }
    }

    #[tokio::test]
    async fn an_address_that_drops_packets_does_not_hide_the_next() {
        let dead = BlackHole::start().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = alive.local_addr().unwrap();

        let found = timeout(SOON, first_reachable(&[dead.address(), dead.address(), alive])).await.unwrap();

        assert_eq!(found, Ok(alive));
    }

    #[tokio::test]
    async fn every_address_that_refuses_is_named() {
        let closed = |_| async { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
        let (one, two) = (closed(1).await, closed(2).await);

        let failed = timeout(SOON, first_reachable(&[one, two])).await.unwrap().unwrap_err();

        assert!(failed.contains(&format!("{one}: ")) && failed.contains(&format!("{two}: ")), "{failed}");
        assert!(failed.contains("refused"), "{failed}");
    }

    #[tokio::test]
    async fn an_unknown_host_name_is_named() {
        let failed = resolve("nowhere.invalid", 5432).await.unwrap_err();

        assert!(failed.starts_with("cannot resolve host name 'nowhere.invalid': "), "{failed}");
    }
}
