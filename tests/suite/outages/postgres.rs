//! Postgres outages of every kind, under the real services that store their data in Postgres.
//!
//! [`run_outage`] checks the same for each kind: calls that need Postgres are refused in time with
//! the documented reason, other calls work, health entries report the outage, no acknowledged write
//! is lost, no write is applied twice, and the services recover soon after Postgres.

mod outage;
mod services;
mod writers;

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::Devstack;
use tokio::time::{Instant, sleep};

use self::outage::{OutageStack, PostgresOutage};
use self::services::{SERVICES, ServiceCase};
use self::writers::Writers;
use crate::service::{MAX_WAIT, TestService};
use crate::support::print_figures;

/// Time until a health entry reports the outage (promised: 3 s); 3 s more on a loaded machine.
const DETECTION: Duration = Duration::from_secs(3 + 3);
/// Time until writes succeed after Postgres is back (promised: 3 s); 3 s more on a loaded machine.
const RECOVERY: Duration = Duration::from_secs(3 + 3);
/// Duration of a call that does not need Postgres; 1.5 s of it for a loaded machine.
const UNAFFECTED_CALL: Duration = Duration::from_millis(150 + 1500);

/// A service under load.
struct ServiceUnderLoad {
    case: &'static ServiceCase,
    service: TestService,
    writers: Writers,
}

impl ServiceUnderLoad {
    async fn start(stack: &'static Devstack, case: &'static ServiceCase) -> Self {
        let service = TestService::start_on(stack, case.name, case.flags, &[]).await;
        service.wait_for_health("readiness SERVING").await;
        for call in (case.prepare)() {
            call.send_until_ok(&service).await;
        }
        let writers = Writers::start(service.address, case.write);
        Self { case, service, writers }
    }

    async fn assert_unaffected_reads(&self) {
        for _ in 0..5 {
            let started = Instant::now();
            (self.case.read)().send_to(&self.service).await.unwrap();
            assert!(started.elapsed() < UNAFFECTED_CALL, "{}: {:?}", self.case.name, started.elapsed());
        }
    }

    /// Waits until the health entry of the service has a state; the service stays ready.
    async fn wait_for_entry(&self, works: bool) -> Duration {
        let state = if works { "SERVING" } else { "NOT_SERVING" };
        let took = self.service.wait_for_health(&format!("{} {state}", self.case.entry)).await;
        let (code, entries) = self.service.http_get("/readyz").await;
        assert_eq!(code, 200, "{} stays ready: {entries}", self.case.name);
        took
    }

    /// Returns the keys of all stored writes; a duplicated write appears twice.
    async fn stored_keys(&self, stack: &Devstack) -> Vec<i32> {
        let mut postgres = PgConnection::connect(&stack.postgres().url(self.service.database())).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(self.case.stored_keys)).fetch_all(&mut postgres).await.unwrap()
    }

    /// Compares acknowledged with stored writes, then retries the refused ones and compares again.
    async fn assert_nothing_lost_or_duplicated(&mut self, stack: &Devstack) {
        let name = self.case.name;
        let (acknowledged, refused) = self.writers.stop().await;
        let lost =
            |stored: &[i32]| -> Vec<i32> { acknowledged.iter().filter(|key| !stored.contains(key)).copied().collect() };
        let stored = self.stored_keys(stack).await;
        assert_eq!(lost(&stored), Vec::<i32>::new(), "{name}: lost of {}", acknowledged.len());
        // Lock stores only the longest TTL, which also covers the key of a refused shorter lease.
        let applied = refused.iter().filter(|key| stored.contains(key) && !self.case.works_without_postgres).count();
        for key in &refused {
            (self.case.write)(*key).send_until_ok(&self.service).await;
        }
        let stored = self.stored_keys(stack).await;
        let distinct: BTreeSet<i32> = stored.iter().copied().collect();
        assert_eq!(stored.len(), distinct.len(), "{name}: a write was applied twice");
        assert!(refused.iter().all(|key| distinct.contains(key)) && lost(&stored).is_empty(), "{name}");
        print_figures(&format!(
            "{name}: {} acknowledged, 0 lost, 0 duplicated; {applied} of {} refused writes had been applied\n",
            acknowledged.len(),
            refused.len()
        ));
        self.service.assert_running();
    }
}

/// Runs an outage under all services of [`SERVICES`] and checks what the module promises.
async fn run_outage(outage: PostgresOutage) {
    let Some(servers) = OutageStack::start(outage).await else { return };
    let stack = servers.stack;
    let mut running = Vec::new();
    for case in SERVICES {
        running.push(ServiceUnderLoad::start(stack, case).await);
    }
    for load in &running {
        load.writers.wait_for_success_since(Instant::now()).await;
        load.assert_unaffected_reads().await; // fills the cache in Redis
        load.wait_for_entry(true).await;
    }

    let active = outage.begin(&servers, &running.iter().map(|load| &load.service).collect::<Vec<_>>()).await;
    let started = Instant::now();
    for load in &running {
        let works = outage.postgres_works() || load.case.works_without_postgres;
        if outage.blocks_writes_of(load.case.name) {
            load.writers.wait_for_refusal(outage.reason()).await;
        }
        load.wait_for_entry(works).await;
        assert!(works || started.elapsed() < DETECTION + MAX_WAIT, "{:?}", started.elapsed());
        load.assert_unaffected_reads().await;
    }
    sleep(Duration::from_secs(1)).await;
    outage.end(&servers, active).await;

    let ended = Instant::now();
    let mut recovered = Duration::ZERO;
    for load in &running {
        recovered = recovered.max(load.writers.wait_for_success_since(ended).await - ended);
        load.wait_for_entry(true).await;
    }
    print_figures(&format!("\n{outage:?}: writes succeed {recovered:.1?} after the end of the outage\n"));
    assert!(recovered < RECOVERY, "{recovered:?}");
    for load in &mut running {
        load.assert_nothing_lost_or_duplicated(stack).await;
    }
    assert_no_connection_is_stuck(stack).await;
}

/// Waits until no connection of a service is in a transaction, or in a statement older than 1 s.
async fn assert_no_connection_is_stuck(stack: &Devstack) {
    let mut postgres = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    let started = Instant::now();
    loop {
        let left: Vec<String> = sqlx::query_scalar(
            "SELECT application_name || ': ' || state || ', ' || query FROM pg_stat_activity \
             WHERE application_name LIKE 'tidings-%' AND state LIKE 'idle in transaction%' \
             OR application_name LIKE 'tidings-%' AND state = 'active' AND query_start < now() - interval '1 s'",
        )
        .fetch_all(&mut postgres)
        .await
        .unwrap();
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < MAX_WAIT, "{left:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgres_is_unavailable_and_loses_nothing() {
    run_outage(PostgresOutage::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_is_unavailable_and_loses_nothing() {
    run_outage(PostgresOutage::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_shutdown_of_postgres_loses_nothing() {
    run_outage(PostgresOutage::ShutDownImmediately).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_without_free_connections_loses_nothing() {
    run_outage(PostgresOutage::OutOfConnections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_is_reported_as_overload_and_loses_nothing() {
    run_outage(PostgresOutage::TableLocked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_as_such_and_loses_nothing() {
    run_outage(PostgresOutage::DiskFull).await;
}
