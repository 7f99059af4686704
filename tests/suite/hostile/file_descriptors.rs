//! A process without free file descriptors: the accept loop waits instead of spinning, and open
//! connections keep working.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{HEALTH, call, flag, kind};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

/// Time for which no descriptor is free.
const EXHAUSTED_FOR: Duration = Duration::from_secs(3);
/// Clients that wait to be accepted.
const CLIENTS: usize = 20;

/// Waiting connections are served as soon as descriptors are free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_file_descriptors_only_delay_new_connections() {
    let mut report = CostReport::start("no file descriptors", TestService::start("user", &[]).await).await;

    let mut used = Duration::ZERO;
    report
        .measure("connections that cannot be accepted", async |service| {
            service.exhaust_file_descriptors();
            let mut waiting = Vec::new();
            for _ in 0..CLIENTS {
                waiting.push(RawConnection::connect(service.address).await);
            }
            // The admin listener is affected, too.
            let _scraper = TcpStream::connect(service.admin).await.unwrap();
            let before = service.cpu_time();
            sleep(EXHAUSTED_FOR).await;
            used = service.cpu_time_since(before);
            let too_early = waiting[0].wait_for_frame(kind::SETTINGS, flag::NONE);
            assert!(
                timeout(Duration::from_millis(50), too_early).await.is_err(),
                "a connection was served without a free descriptor"
            );

            service.restore_file_descriptors();
            for connection in &mut waiting {
                connection.send(&call(1, HEALTH, &[])).await.unwrap();
                let answered = timeout(MAX_WAIT, connection.wait_for_frame(kind::HEADERS, flag::END_STREAM)).await;
                assert!(
                    answered.is_ok_and(|frame| frame.is_some()),
                    "a connection is not served although descriptors are free"
                );
            }
            AbuseTotals { connections: 20, sent: 20 }
        })
        .await;

    // A spinning loop would use a whole processor; this includes the background load.
    assert!(used < EXHAUSTED_FOR / 2, "used {used:?} of CPU time in {EXHAUSTED_FOR:?}");
    report.finish().await;
}
