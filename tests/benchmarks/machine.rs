//! Where it was measured, and with what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::process::Programs;
use crate::root;

/// How long it is waited for a machine that does something else.
const REST: Duration = Duration::from_mins(3);

/// What there is to know of the machine, before anything runs.
pub(crate) struct Machine {
    /// What it is, a line each.
    rows: Vec<(&'static str, String)>,
    /// How many processes were running or waiting to, on average over the last minute.
    pub(crate) load: f64,
    pub(crate) cores: usize,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Self {
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let load = load();
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit =
            said("git", &["rev-parse", "--short=12", "HEAD"]) + if changed { " and uncommitted changes" } else { "" };
        let rows = vec![
            ("processor", format!("{}, {cores} cores", field(&read("/proc/cpuinfo"), "model name"))),
            ("memory", field(&read("/proc/meminfo"), "MemTotal")),
            ("system", format!("{}, Linux {}", system(), read("/proc/sys/kernel/osrelease").trim())),
            ("load before", format!("{load} (average of the last minute)")),
            ("Tidings", format!("commit {commit}, {}", said("rustc", &["--version"]))),
        ];
        Self { rows, load, cores }
    }

    /// All of it with the versions of what Tidings is measured beside, a line each.
    pub(crate) fn rows(&self, programs: &Programs) -> Vec<(&'static str, String)> {
        let version = |path: &Option<std::path::PathBuf>| match path {
            Some(path) => first_line(path, &["--version"]),
            None => "not to be had here: left out".to_owned(),
        };
        let packages = fs::read_to_string(root().join("tests/naive/requirements.txt")).unwrap_or_default();
        let python = match &programs.python {
            Some(path) => format!("{}, {}", first_line(path, &["--version"]), packages.trim().replace('\n', ", ")),
            None => version(&None),
        };
        let mut rows = self.rows.clone();
        rows.push(("Postgres", said("psql", &["--version"])));
        rows.push(("Redis", said("redis-server", &["--version"])));
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

fn said(program: &str, arguments: &[&str]) -> String {
    first_line(Path::new(program), arguments)
}

fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// How many tasks wanted to run, on the average of the last minute.
fn load() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// Whether a machine of so many cores does little else.
#[expect(clippy::cast_precision_loss, reason = "few cores")]
pub(crate) fn is_quiet(load: f64, cores: usize) -> bool {
    load <= 0.5 * cores as f64
}

/// Waits until the machine does little else, as after the build of what is to be measured; not for ever.
pub(crate) async fn rests() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let deadline = Instant::now() + REST;
    while !is_quiet(load(), cores) && Instant::now() < deadline {
        eprint!("\rthe machine is busy ({:.1}), waiting ...", load());
        sleep(Duration::from_secs(1)).await;
    }
    eprintln!();
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
