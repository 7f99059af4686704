//! Measures the cost of abuse for the service and the latency of other callers; prints a row for
//! each.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::background_load::BackgroundLoad;
use crate::service::{MAX_WAIT, TestService};
use crate::support::print_figures;

/// Memory in bytes that abuse may add: buffers and reserves of the allocator, nothing that grows
/// with the amount of abuse.
const MAX_GROWTH: u64 = 96 << 20;
/// Connections to Postgres and Redis that a service may add; abusive ones must be closed.
const STORE_CONNECTIONS: usize = 20;
/// Time for which only the background load runs, to measure its CPU time per call.
const BASELINE: Duration = Duration::from_millis(500);

/// Measurements of abuse against one service that also has a background load.
pub(crate) struct CostReport {
    pub(crate) service: TestService,
    pub(crate) background: BackgroundLoad,
    /// CPU seconds of the service for one background call.
    cpu_per_call: f64,
    table: String,
}

/// Amount of traffic from abusive clients.
pub(crate) struct AbuseTotals {
    /// Number of connections.
    pub(crate) connections: u64,
    /// Number of frames, calls or requests on all connections.
    pub(crate) sent: u64,
}

impl CostReport {
    /// Starts the background load and measures its cost.
    pub(crate) async fn start(title: &str, service: TestService) -> Self {
        let background = BackgroundLoad::start(&service).await;
        let mut table = format!("\n{title}: CPU time of the service, without that of the background load\n");
        let columns = [
            "abuse",
            "connections",
            "sent",
            "seconds",
            "CPU ms",
            "ms/connection",
            "MiB, peak, end",
            "calls",
            "slowest ms",
        ];
        write!(table, "  {:<44}{:>12}{:>10}{:>9}{:>9}", columns[0], columns[1], columns[2], columns[3], columns[4])
            .unwrap();
        writeln!(table, "{:>14}{:>16}{:>8}{:>12}", columns[5], columns[6], columns[7], columns[8]).unwrap();
        let mut report = Self { service, background, cpu_per_call: 0.0, table };
        let (calls, cpu) = (report.background.calls(), report.service.cpu_time());
        sleep(BASELINE).await;
        let used = report.service.cpu_time_since(cpu);
        report.cpu_per_call = used.as_secs_f64() / count(report.background.calls() - calls).max(1.0);
        report
    }

    /// Runs abusive clients and adds a row with their cost.
    ///
    /// # Panics
    /// If a background call fails, or the service exits, panics, or keeps more memory than allowed.
    pub(crate) async fn measure(
        &mut self,
        name: &str,
        abuse: impl AsyncFnOnce(&TestService) -> AbuseTotals,
    ) -> AbuseTotals {
        let (memory, files, calls) = (self.service.memory(), self.service.open_files(), self.background.calls());
        self.background.slowest();
        let (start, cpu) = (Instant::now(), self.service.cpu_time());
        self.service.reset_peak_memory();
        let totals = abuse(&self.service).await;
        self.background.wait_for_progress().await;
        let (took, used) = (start.elapsed(), self.service.cpu_time_since(cpu));
        let (answered, slowest) = (self.background.calls() - calls, self.background.slowest());
        let abuse_ms = (used.as_secs_f64() - self.cpu_per_call * count(answered)).max(0.0) * 1e3;
        self.service.assert_running();
        self.service.wait_for_open_files(files + STORE_CONNECTIONS, MAX_WAIT).await;
        self.service.wait_for_memory(memory + MAX_GROWTH, MAX_WAIT).await;
        let after = self.service.memory();
        self.add_row(name, &totals, took, abuse_ms, [memory, self.service.peak_memory(), after], answered, slowest);
        totals
    }

    #[expect(clippy::too_many_arguments, reason = "one argument per column")]
    fn add_row(
        &mut self,
        name: &str,
        totals: &AbuseTotals,
        took: Duration,
        abuse_ms: f64,
        memory: [u64; 3],
        answered: u64,
        slowest: Duration,
    ) {
        let each = abuse_ms / count(totals.connections).max(1.0);
        let [before, peak, after] = memory.map(|bytes| bytes >> 20);
        let memory = format!("{before} {peak} {after}");
        let (sent, connections, seconds) = (totals.sent, totals.connections, took.as_secs_f64());
        write!(self.table, "  {name:<44}{connections:>12}{sent:>10}{seconds:>9.1}{abuse_ms:>9.0}{each:>14.2}").unwrap();
        writeln!(self.table, "{memory:>16}{answered:>8}{:>12.0}", slowest.as_secs_f64() * 1e3).unwrap();
    }

    /// Stops the background load and prints the table.
    ///
    /// # Panics
    /// If a background call failed.
    pub(crate) async fn finish(mut self) {
        self.service.assert_running();
        let total = self.background.calls();
        self.background.stop().await;
        writeln!(self.table, "  {total} background calls, 0 failed").unwrap();
        print_figures(&self.table);
    }
}

#[expect(clippy::cast_precision_loss, reason = "all counts are below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}
