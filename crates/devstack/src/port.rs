//! Finds free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Range of the ports, below the ephemeral ports (from 32768 on Linux, from 49152 on macOS).
///
/// A restarted server therefore finds its port free, even while clients keep reconnecting. A client
/// that connects to an unused ephemeral port may get the same port as its own and connect to
/// itself.
const PORTS: Range<u16> = 15_000..32_000;

/// Returns a random unused port of 127.0.0.1.
pub(crate) fn free() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
