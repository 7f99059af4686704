//! The machine of the benchmarks, and the versions of all programs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::process::{PeerPrograms, root};

/// Longest wait for a busy machine.
const IDLE_WAIT_MAX: Duration = Duration::from_mins(3);

/// The machine, before anything runs.
pub(crate) struct Machine {
    /// Name and value of each property.
    rows: Vec<(&'static str, String)>,
    /// Load average of the last minute: processes that ran or waited for a CPU.
    pub(crate) load: f64,
    pub(crate) cores: usize,
}

impl Machine {
    /// Reads the properties of the machine.
    pub(crate) fn inspect() -> Self {
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let load = load_average();
        let changed = !output_of("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = output_of("git", &["rev-parse", "--short=12", "HEAD"])
            + if changed { " and uncommitted changes" } else { "" };
        let rows = vec![
            ("processor", format!("{}, {cores} cores", field(&read("/proc/cpuinfo"), "model name"))),
            ("memory", field(&read("/proc/meminfo"), "MemTotal")),
            ("system", format!("{}, Linux {}", system(), read("/proc/sys/kernel/osrelease").trim())),
            ("load before the run", format!("{load} (average of the last minute)")),
            ("Tidings", format!("commit {commit}, {}", output_of("rustc", &["--version"]))),
        ];
        Self { rows, load, cores }
    }

    /// Returns all properties, and the versions of the alternatives.
    pub(crate) fn rows(&self, programs: &PeerPrograms) -> Vec<(&'static str, String)> {
        let version = |path: &Option<std::path::PathBuf>| match path {
            Some(path) => first_line(path, &["--version"]),
            None => "not available: skipped".to_owned(),
        };
        let packages = fs::read_to_string(root().join("tests/naive/requirements.txt")).unwrap_or_default();
        let python = match &programs.python {
            Some(path) => format!("{}, {}", first_line(path, &["--version"]), packages.trim().replace('\n', ", ")),
            None => version(&None),
        };
        let mut rows = self.rows.clone();
        rows.push(("Postgres", output_of("psql", &["--version"])));
        rows.push(("Redis", output_of("redis-server", &["--version"])));
        rows.push(("etcd", version(&programs.etcd)));
        rows.push(("nats-server", version(&programs.nats)));
        rows.push(("naive Python", python));
        rows
    }
}

fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("unknown".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Returns the first line that a program prints.
fn output_of(program: &str, arguments: &[&str]) -> String {
    first_line(Path::new(program), arguments)
}

fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Returns the load average of the last minute; 0 if it is unknown.
fn load_average() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Returns true if the machine does little else: a load of at most half its cores.
#[expect(clippy::cast_precision_loss, reason = "few cores")]
pub(crate) fn is_idle(load: f64, cores: usize) -> bool {
    load <= 0.5 * cores as f64
}

/// Waits until the machine is idle, e.g. after the build, at most [`IDLE_WAIT_MAX`].
pub(crate) async fn wait_until_idle() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let deadline = Instant::now() + IDLE_WAIT_MAX;
    while !is_idle(load_average(), cores) && Instant::now() < deadline {
        eprint!("\rthe machine is busy (load {:.1}), waiting ...", load_average());
        sleep(Duration::from_secs(1)).await;
    }
    eprintln!();
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
