//! The port that an instance has for machines: plain HTTP, without TLS and tokens.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most that is read: many times what an instance has to say.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What was answered: the code, and the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) text: String,
}

/// Asks `address` for `path`.
pub(super) async fn get(address: &str, path: &str, patience: Duration) -> io::Result<Answer> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(patience, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP is spoken there"))
}

/// Splits an answer whose body ends with the connection.
fn read(answer: &[u8]) -> Option<Answer> {
    let text = str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, text: body.to_owned() })
}

/// The value of a label of a metric.
pub(super) fn label(metrics: &str, metric: &str, label: &str) -> Option<String> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'))?;
    let value = line.split(&[',', '{'][..]).find_map(|part| part.strip_prefix(label)?.strip_prefix("=\""))?;
    Some(value.split('"').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_code_and_a_text() {
        let answer = read(b"HTTP/1.1 503 Service Unavailable\r\ndate: x\r\n\r\nserver NOT_SERVING\n");

        assert_eq!(answer, Some(Answer { code: 503, text: "server NOT_SERVING\n".to_owned() }));
        assert_eq!(read(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
    }

    #[test]
    fn a_label_is_found() {
        let metrics = "# TYPE x\ntidings_build_info{service=\"user\",version=\"0.0.1\"} 1\n";

        assert_eq!(label(metrics, "tidings_build_info", "version").as_deref(), Some("0.0.1"));
        assert_eq!(label(metrics, "tidings_build_info", "other"), None);
    }
}
