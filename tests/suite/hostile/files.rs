//! A process that has no file descriptors left: it waits instead of spinning, and goes on with what it has.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::frames::{HEALTH, call, flag, kind};
use super::ledger::{Attack, Ledger};
use super::raw::Raw;
use crate::service::{SOON, Service};

/// How long there are none.
const WHILE: Duration = Duration::from_secs(3);
/// How many clients wait for one.
const CLIENTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_nothing_spins_and_connections_go_on_and_then_all_are_served() {
    let mut ledger = Ledger::open("no file descriptors", Service::start("user", &[]).await).await;

    let mut used = Duration::ZERO;
    ledger
        .enter("connections that can not be accepted", async |service| {
            service.forbid_files();
            let mut waiting = Vec::new();
            for _ in 0..CLIENTS {
                waiting.push(Raw::connect(service.address).await);
            }
            // Its port for metrics is a listener, too.
            let _scraper = TcpStream::connect(service.admin).await.unwrap();
            let before = service.cpu();
            sleep(WHILE).await;
            used = service.cpu_since(before);
            let too_early = waiting[0].find(kind::SETTINGS, flag::NONE);
            assert!(timeout(Duration::from_millis(50), too_early).await.is_err(), "was served without a descriptor");

            service.allow_files();
            for raw in &mut waiting {
                raw.send(&call(1, HEALTH, &[])).await.unwrap();
                let answered = timeout(SOON, raw.find(kind::HEADERS, flag::END_STREAM)).await;
                assert!(
                    answered.is_ok_and(|answer| answer.is_some()),
                    "is not served when there are descriptors again"
                );
            }
            Attack { connections: 20, sent: 20 }
        })
        .await;

    // With the calls of the victims, and yet far from the whole of one processor, which a spinning loop takes.
    assert!(used < WHILE / 2, "used {used:?} of {WHILE:?}");
    ledger.close().await;
}
