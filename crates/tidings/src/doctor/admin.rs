//! A client for an instance's port for metrics and probes: plain HTTP, without TLS and tokens.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest response in bytes: many times the size of an instance's metrics.
const RESPONSE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A response: status code and body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdminResponse {
    pub(super) code: u16,
    pub(super) text: String,
}

/// Sends `GET path` to `address`.
///
/// # Errors
/// No response within `limit`, or one that is not HTTP.
pub(super) async fn get(address: &str, path: &str, limit: Duration) -> io::Result<AdminResponse> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).await?;
        Ok::<_, io::Error>(response)
    };
    let response = timeout(limit, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    parse(&response).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP"))
}

/// Parses a response whose body ends with the connection.
fn parse(response: &[u8]) -> Option<AdminResponse> {
    let text = str::from_utf8(response).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(AdminResponse { code, text: body.to_owned() })
}

/// Returns the value of a label of the first series of `metric`.
pub(super) fn label(metrics: &str, metric: &str, label: &str) -> Option<String> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'))?;
    let value = line.split(&[',', '{'][..]).find_map(|part| part.strip_prefix(label)?.strip_prefix("=\""))?;
    Some(value.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_a_code_and_a_text() {
        let response = parse(b"HTTP/1.1 503 Service Unavailable\r\ndate: x\r\n\r\nserver NOT_SERVING\n");

        assert_eq!(response, Some(AdminResponse { code: 503, text: "server NOT_SERVING\n".to_owned() }));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
    }

    #[test]
    fn a_label_is_found() {
        let metrics = "# TYPE x\ntidings_build_info{service=\"user\",version=\"0.0.1\"} 1\n";

        assert_eq!(label(metrics, "tidings_build_info", "version").as_deref(), Some("0.0.1"));
        assert_eq!(label(metrics, "tidings_build_info", "other"), None);
    }
}
