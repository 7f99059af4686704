//! What a call leaves in the log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::{fmt, registry};

use crate::support::{Running, call_as};

/// Log lines, kept.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Keeps what this thread logs, until the guard goes.
    pub(crate) fn keep(&self, filter: &str) -> DefaultGuard {
        let writer = self.clone();
        let filter: Targets = filter.parse().unwrap();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        set_default(registry().with(lines.with_filter(filter)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// One thread runs the whole test, so the subscriber of this thread sees every line of the server.
#[tokio::test(flavor = "current_thread")]
async fn every_call_writes_one_line_with_method_code_duration_and_request_id() {
    let lines = Lines::default();
    let _guard = lines.keep("tidings_server=debug");
    let server = Running::start().await;

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
