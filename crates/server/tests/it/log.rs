//! The log line of a call.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::{fmt, registry};

use crate::support::{TestServer, call_as};

/// Log lines captured in memory.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Captures the log of this thread until the guard is dropped.
    pub(crate) fn capture(&self, filter: &str) -> DefaultGuard {
        let writer = self.clone();
        let filter: Targets = filter.parse().unwrap();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        set_default(registry().with(lines.with_filter(filter)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for CapturedLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// One thread runs the whole test, so its subscriber sees every line of the server.
/// The line has method, code, duration and request id.
#[tokio::test(flavor = "current_thread")]
async fn every_call_writes_one_log_line() {
    let lines = CapturedLog::default();
    let _guard = lines.capture("tidings_server=debug");
    let server = TestServer::start().await;

    let channel = server.channel().await;
    call_as(&channel, "/test.v1.Probe/Fail", Some("order-42")).await.unwrap_err();

    drop(channel);
    server.stop().await;
    let text = lines.text();
    let calls: Vec<_> = text.lines().filter(|line| line.contains("call ended")).collect();
    let [line] = calls[..] else {
        panic!("not one line: {text}");
    };
    for part in
        ["DEBUG", r#"method="test.v1.Probe/Fail""#, "request_id=\"order-42\"", r#"code="NotFound""#, "duration="]
    {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}
