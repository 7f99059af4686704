//! Standard error is a pipe that is not read: a log collector that has stopped.

use std::io::{self, BufRead as _, BufReader};

use rustix::process::{Signal, kill_process};
use tidings_proto::broadcast::GetChannelRequest;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tonic::Code;

use crate::service::{MAX_WAIT, TestService};

/// Every call writes several lines.
const LOG: [(&str, &str); 1] = [("TIDINGS_LOG", "trace,h2=trace")];
const DROPPED: &str = "tidings_log_lines_dropped_total{cause=\"stderr\"}";

/// Makes calls, at least 1,000, until the buffer of the log is full.
async fn fill_the_buffer(service: &TestService) {
    let mut client = BroadcastServiceClient::new(service.channel().await);
    let mut calls = 0;
    while calls < 1000 || service.metric(DROPPED).await < 1.0 {
        for _ in 0..100 {
            let request = GetChannelRequest { name: "rooms/1".to_owned() };
            let answered = client.get_channel(request).await;
            assert!(answered.is_ok() || answered.is_err_and(|status| status.code() == Code::NotFound));
        }
        calls += 100;
    }
}

/// The service answers, reports the dropped lines once the pipe is read, and loses no line of its
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stderr_blocks_no_call_and_is_reported() {
    let (reader, stderr) = io::pipe().unwrap();
    let mut service = TestService::start_with_stderr("broadcast", &LOG, stderr.into()).await;

    fill_the_buffer(&service).await;
    assert_eq!(service.http_get("/livez").await.0, 200);

    let (reported, report) = tokio::sync::oneshot::channel();
    let reading = std::thread::spawn(move || {
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let report = lines.find(|line| line.contains("log lines dropped")).unwrap();
        reported.send(report).unwrap();
        lines.last()
    });
    let report: serde_json::Value = serde_json::from_str(&report.await.unwrap()).unwrap();
    assert!(report["lines"].as_u64().unwrap() > 0, "{report}");
    service.terminate();
    assert!(service.wait_for_exit(MAX_WAIT).await.unwrap().success());
    reading.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_stderr_does_not_hold_up_the_drain() {
    let (_reader, stderr) = io::pipe().unwrap();
    let mut service = TestService::start_with_stderr("broadcast", &LOG, stderr.into()).await;
    fill_the_buffer(&service).await;

    kill_process(service.pid(), Signal::HUP).unwrap(); // ignored
    assert_eq!(service.http_get("/livez").await.0, 200);
    service.terminate();

    assert!(service.wait_for_exit(2 * MAX_WAIT).await.unwrap().success());
}
