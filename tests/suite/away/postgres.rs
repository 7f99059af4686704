//! Postgres away in every way there is, under the real services that keep their truth in it.
//!
//! What is the same each time is in [`endure`]: what needs Postgres is refused within its time and with the documented reason,
//! what does not goes on, health says which of both it is, nothing that was acknowledged is lost, nothing is done twice, and all
//! is as before soon after Postgres works again.

mod outages;
mod subjects;
mod writers;

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::Devstack;
use tokio::time::{Instant, sleep};

use self::outages::{Ground, Outage};
use self::subjects::{SUBJECTS, Subject};
use self::writers::Writers;
use crate::service::{SOON, Service};
use crate::support::say;

/// It is said of an entry within 3 s that it does not work, and within 2 s that it does again; with what a loaded machine adds.
const TOLD: Duration = Duration::from_secs(3 + 3);
/// All is as before within 3 s after Postgres works again; likewise.
const RECOVERED: Duration = Duration::from_secs(3 + 3);
/// What goes on without Postgres does not wait for it; likewise.
const WITHOUT: Duration = Duration::from_millis(150 + 1500);

/// A service under load.
struct Running {
    subject: &'static Subject,
    service: Service,
    writers: Writers,
}

impl Running {
    async fn start(stack: &'static Devstack, subject: &'static Subject) -> Self {
        let service = Service::on(stack, subject.name, subject.flags, &[]).await;
        service.until("readiness SERVING").await;
        for call in (subject.prepare)() {
            call.insist(&service).await;
        }
        let writers = Writers::start(service.address, subject.write);
        Self { subject, service, writers }
    }

    async fn answers_what_needs_no_postgres(&self) {
        for _ in 0..5 {
            let begun = Instant::now();
            (self.subject.read)().answer(&self.service).await.unwrap();
            assert!(begun.elapsed() < WITHOUT, "{}: {:?}", self.subject.name, begun.elapsed());
        }
    }

    /// Waits until its entry is so, while it stays ready.
    async fn told(&self, works: bool) -> Duration {
        let state = if works { "SERVING" } else { "NOT_SERVING" };
        let took = self.service.until(&format!("{} {state}", self.subject.entry)).await;
        let (code, entries) = self.service.get("/readyz").await;
        assert_eq!(code, 200, "{} is ready all the same: {entries}", self.subject.name);
        took
    }

    /// The keys of what is kept; one that is kept twice is there twice.
    async fn kept(&self, stack: &Devstack) -> Vec<i32> {
        let mut postgres = PgConnection::connect(&stack.postgres().url(self.service.database())).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(self.subject.kept)).fetch_all(&mut postgres).await.unwrap()
    }

    /// Compares what was said with what is there; then repeats what was refused, and compares again.
    async fn assert_nothing_is_lost_or_doubled(&mut self, stack: &Devstack) {
        let name = self.subject.name;
        let (acknowledged, refused) = self.writers.stop().await;
        let lost =
            |kept: &[i32]| -> Vec<i32> { acknowledged.iter().filter(|key| !kept.contains(key)).copied().collect() };
        let kept = self.kept(stack).await;
        assert_eq!(lost(&kept), Vec::<i32>::new(), "{name}: lost of {}", acknowledged.len());
        // A lease of lock is known to Postgres as soon as a longer one is.
        let done = refused.iter().filter(|key| kept.contains(key) && !self.subject.goes_on).count();
        for key in &refused {
            (self.subject.write)(*key).insist(&self.service).await;
        }
        let kept = self.kept(stack).await;
        let different: BTreeSet<i32> = kept.iter().copied().collect();
        assert_eq!(kept.len(), different.len(), "{name}: something was done twice");
        assert!(refused.iter().all(|key| different.contains(key)) && lost(&kept).is_empty(), "{name}");
        say(&format!(
            "{name}: {} acknowledged, 0 lost, 0 twice; of {} refused {done} had been done\n",
            acknowledged.len(),
            refused.len()
        ));
        self.service.assert_is_well();
    }
}

/// Lets the services go through an outage.
async fn endure(outage: Outage) {
    let Some(ground) = Ground::of(outage).await else { return };
    let stack = ground.stack;
    let mut running = Vec::new();
    for subject in SUBJECTS {
        running.push(Running::start(stack, subject).await);
    }
    for one in &running {
        one.writers.acknowledged_since(Instant::now()).await;
        one.answers_what_needs_no_postgres().await; // from now on from Redis
        one.told(true).await;
    }

    let harm = outage.hurt(&ground, &running.iter().map(|one| &one.service).collect::<Vec<_>>()).await;
    let begun = Instant::now();
    for one in &running {
        let works = outage.postgres_works() || one.subject.goes_on;
        if outage.stops(one.subject.name) {
            one.writers.refused(outage.reason()).await;
        }
        one.told(works).await;
        assert!(works || begun.elapsed() < TOLD + SOON, "{:?}", begun.elapsed());
        one.answers_what_needs_no_postgres().await;
    }
    sleep(Duration::from_secs(1)).await;
    outage.heal(&ground, harm).await;

    let healed = Instant::now();
    let mut recovered = Duration::ZERO;
    for one in &running {
        recovered = recovered.max(one.writers.acknowledged_since(healed).await - healed);
        one.told(true).await;
    }
    say(&format!("\n{outage:?}: acknowledged {recovered:.1?} after Postgres works again\n"));
    assert!(recovered < RECOVERED, "{recovered:?}");
    for one in &mut running {
        one.assert_nothing_is_lost_or_doubled(stack).await;
    }
    assert_no_connection_is_stuck(stack).await;
}

/// Waits until no connection of a service is in the middle of anything.
async fn assert_no_connection_is_stuck(stack: &Devstack) {
    let mut postgres = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    let begun = Instant::now();
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
        assert!(begun.elapsed() < SOON, "{left:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_is_unavailable_within_its_time_and_loses_nothing() {
    endure(Outage::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_is_unavailable_within_its_time_and_loses_nothing() {
    endure(Outage::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_shut_down_immediately_is_unavailable_within_its_time_and_loses_nothing() {
    endure(Outage::ShutDownImmediately).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_without_a_free_connection_is_unavailable_within_its_time_and_loses_nothing() {
    endure(Outage::OutOfConnections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_is_overload_within_its_time_and_loses_nothing() {
    endure(Outage::TableLocked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_unavailable_in_clear_words_and_loses_nothing() {
    endure(Outage::DiskFull).await;
}
