//! Postgres and the disk alone, measured by the tools of Postgres.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::plan::Plan;
use crate::round::Round;

/// Connections of pgbench: as many as a service has by default.
const CONNECTIONS: &str = "16";

const TABLE: &str = "CREATE TABLE message (id bigserial PRIMARY KEY, conversation int NOT NULL, sender text NOT NULL, \
                     body text NOT NULL)";
const INSERT: &str = "\\set conversation random(1, 1000)\nINSERT INTO message (conversation, sender, body) \
                      VALUES (:conversation, 'ada', repeat('x', 100));\n";

/// pgbench with one insert per transaction.
pub(crate) struct Pgbench {
    url: String,
    script: PathBuf,
}

impl Pgbench {
    /// Creates the table in an empty database.
    pub(crate) async fn prepare(url: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.unwrap();
        connection.execute(TABLE).await.unwrap();
        let script = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("insert.sql");
        fs::write(&script, INSERT).unwrap();
        Self { url: url.to_owned(), script }
    }

    /// Runs pgbench for this long, at least a second.
    pub(crate) fn round(&self, time: Duration) -> Round {
        let seconds = time.as_secs().max(1).to_string();
        let output = Command::new(program("pgbench").expect("pgbench is installed with Postgres"))
            .args(["--no-vacuum", "--jobs", "2", "--client", CONNECTIONS, "--time", &seconds, "--file"])
            .arg(&self.script)
            .arg(&self.url)
            .output()
            .unwrap();
        let output_text = String::from_utf8_lossy(&output.stdout);
        let rate = output_text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let failed = output_text
            .lines()
            .find_map(|line| line.strip_prefix("number of failed transactions: ")?.split(' ').next()?.parse().ok());
        let failed = failed.filter(|failed| *failed > 0).map(|failed| ("transactions".to_owned(), failed));
        let errors = String::from_utf8_lossy(&output.stderr);
        Round {
            rate: rate.unwrap_or_else(|| panic!("pgbench failed: {errors}")),
            latency: None,
            failures: failed.into_iter().collect(),
        }
    }
}

/// Measures flushes of 8 KiB per second (`fdatasync`) to the disk of a directory, by
/// `pg_test_fsync`: the upper limit for the commits of a single writer.
pub(crate) fn flushes_per_second(dir: &Path, plan: Plan) -> Option<f64> {
    if plan.quick {
        return None; // it takes 15 s
    }
    eprintln!("pg_test_fsync ...");
    let file = dir.join("pg_test_fsync.out");
    let output = Command::new(program("pg_test_fsync")?).args(["-s", "1", "-f"]).arg(file).output().ok()?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    output_text.lines().find_map(|line| line.trim().strip_prefix("fdatasync")?.split_whitespace().next()?.parse().ok())
}

/// Returns the path of a program of Postgres, from PATH or from the directory that Debian uses.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).map(|dir| dir.join(name));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.chain(versions.map(|version| version.path().join("bin").join(name))).find(|path| path.exists())
}
