//! Finds free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ports that systems give to outgoing connections (32768 and up on Linux, 49152 on macOS): a server that
/// is started again finds its port free, even if clients tried to reconnect all the time. From within that range a
/// loopback connection can take the port it wants to reach, and then talk to itself.
const PORTS: Range<u16> = 15_000..32_000;

/// Returns a port of 127.0.0.1 that nobody listens on, drawn at random.
pub(crate) fn free() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
