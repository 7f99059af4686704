//! What an attack cost the service, and what its victims felt: one line for each, printed also when all is well.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::victims::Victims;
use crate::service::{SOON, Service};
use crate::support::say;

/// How much an attack may add to the memory of a service: buffers and the allocator's reserves, but nothing that grows with
/// the attack.
const GROWTH: u64 = 96 << 20;
/// Connections to stores that a service may add while it is attacked; those of an attacker must be gone.
const STORES: usize = 20;
/// What the victims alone are watched for, to tell their cost from that of an attack.
const QUIET: Duration = Duration::from_millis(500);

/// Attacks on one service, with its victims.
pub(crate) struct Ledger {
    pub(crate) service: Service,
    pub(crate) victims: Victims,
    /// CPU seconds of the service for one call of a victim.
    price: f64,
    lines: String,
}

/// What an attacker did.
pub(crate) struct Attack {
    /// Connections that it took.
    pub(crate) connections: u64,
    /// What it sent on them: frames, calls or requests.
    pub(crate) sent: u64,
}

impl Ledger {
    /// Opens the account of a service.
    pub(crate) async fn open(title: &str, service: Service) -> Self {
        let victims = Victims::of(&service).await;
        let mut lines = format!("\n{title}: the CPU time of the service, without that of its victims' calls\n");
        let columns = [
            "attack",
            "connections",
            "sent",
            "seconds",
            "CPU ms",
            "a connection",
            "MiB, peak, end",
            "calls",
            "slowest ms",
        ];
        write!(lines, "  {:<44}{:>12}{:>10}{:>9}{:>9}", columns[0], columns[1], columns[2], columns[3], columns[4])
            .unwrap();
        writeln!(lines, "{:>14}{:>16}{:>8}{:>12}", columns[5], columns[6], columns[7], columns[8]).unwrap();
        let mut ledger = Self { service, victims, price: 0.0, lines };
        let (calls, cpu) = (ledger.victims.calls(), ledger.service.cpu());
        sleep(QUIET).await;
        let used = ledger.service.cpu_since(cpu);
        ledger.price = used.as_secs_f64() / count(ledger.victims.calls() - calls).max(1.0);
        ledger
    }

    /// Lets an attack happen and takes down what it cost.
    ///
    /// # Panics
    /// If a victim's call failed, the service ended, panicked, or grew.
    pub(crate) async fn enter(&mut self, name: &str, attack: impl AsyncFnOnce(&Service) -> Attack) -> Attack {
        let (memory, files, calls) = (self.service.memory(), self.service.files(), self.victims.calls());
        self.victims.slowest();
        let (start, cpu) = (Instant::now(), self.service.cpu());
        self.service.forget_peak();
        let done = attack(&self.service).await;
        self.victims.get_on().await;
        let (took, used) = (start.elapsed(), self.service.cpu_since(cpu));
        let (answered, slowest) = (self.victims.calls() - calls, self.victims.slowest());
        let own = (used.as_secs_f64() - self.price * count(answered)).max(0.0) * 1e3;
        self.service.assert_is_well();
        self.service.files_fall_to(files + STORES, SOON).await;
        self.service.memory_falls_to(memory + GROWTH, SOON).await;
        let after = self.service.memory();
        self.line(name, &done, took, own, [memory, self.service.peak(), after], answered, slowest);
        done
    }

    #[expect(clippy::too_many_arguments, reason = "a line has so many columns")]
    fn line(
        &mut self,
        name: &str,
        done: &Attack,
        took: Duration,
        own_ms: f64,
        memory: [u64; 3],
        answered: u64,
        slowest: Duration,
    ) {
        let each = own_ms / count(done.connections).max(1.0);
        let [before, peak, after] = memory.map(|bytes| bytes >> 20);
        let memory = format!("{before} {peak} {after}");
        let (sent, connections, seconds) = (done.sent, done.connections, took.as_secs_f64());
        write!(self.lines, "  {name:<44}{connections:>12}{sent:>10}{seconds:>9.1}{own_ms:>9.0}{each:>14.2}").unwrap();
        writeln!(self.lines, "{memory:>16}{answered:>8}{:>12.0}", slowest.as_secs_f64() * 1e3).unwrap();
    }

    /// Closes the account, and prints it.
    ///
    /// # Panics
    /// If any call of a victim failed.
    pub(crate) async fn close(mut self) {
        self.service.assert_is_well();
        let total = self.victims.calls();
        self.victims.end().await;
        writeln!(self.lines, "  {total} calls of victims, 0 failed").unwrap();
        say(&self.lines);
    }
}

#[expect(clippy::cast_precision_loss, reason = "nothing here counts to 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}
