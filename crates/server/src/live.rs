//! What is read from files and read again when they change: certificates, tokens.
//!
//! The content is looked at again and again. Waiting for the system's news of a file instead misses what Kubernetes does:
//! it swaps a symlink two directories above.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

/// More than any list of certificates or tokens; a path that names something else fills no memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What files are read into.
pub(crate) trait Content: Send + Sync + 'static {
    /// As the log names it, e.g. `certificates`.
    const WHAT: &'static str;
    /// Counts how often it was read again, by `outcome`.
    const RELOADS: &'static str;

    /// It is in use from now on.
    fn in_use(&self) {}
}

/// Why files can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub(crate) struct Unusable {
    /// Which of the files is to blame, by its place among the paths.
    pub(crate) place: usize,
    /// Its path.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) cause: Cause,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// It can not be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It does not hold what it should.
    #[error("expected {0}")]
    Malformed(String),
}

/// The file at `place` does not hold what it should.
pub(crate) type Malformed = (usize, String);

/// Makes a value of the contents of all files, in the order of their paths.
type Reader<T> = dyn Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync;

/// A value read from files, always the one that they held when they were last right.
pub(crate) struct Live<T> {
    paths: Vec<PathBuf>,
    reader: Box<Reader<T>>,
    value: RwLock<Arc<T>>,
    opened: Mark,
}

/// Tells two states of the files apart without keeping what they hold, which may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Readable([u8; 32]),
    Unreadable(usize, io::ErrorKind),
}

impl<T: Content> Live<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What is wrong with the first file that is not right.
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        reader: impl Fn(&[Vec<u8>]) -> Result<T, Malformed> + Send + Sync + 'static,
    ) -> Result<Self, Unusable> {
        let (opened, value) = read_all(&paths, &reader);
        let value = value?;
        value.in_use();
        for outcome in ["ok", "failed"] {
            metrics::counter!(T::RELOADS, "outcome" => outcome).increment(0);
        }
        Ok(Self { paths, reader: Box::new(reader), value: RwLock::new(Arc::new(value)), opened })
    }

    /// The value as it is now.
    pub(crate) fn now(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files so often, and takes over what they hold when that has changed, for as long as it is polled.
    ///
    /// What is not right changes nothing. It is told once, when it was found twice: files that belong together are often
    /// written one after the other.
    pub(crate) async fn watch(self: Arc<Self>, look: Duration) {
        let mut ticks = interval(look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut suspected) = (self.opened, None);
        loop {
            ticks.tick().await;
            let live = Arc::clone(&self);
            // A file system that hangs must not hold up calls.
            let looked = tokio::task::spawn_blocking(move || read_all(&live.paths, &*live.reader)).await;
            let Ok((mark, value)) = looked else { continue };
            let unchanged = mark == seen;
            let found_twice = suspected.replace(mark) == Some(mark);
            match value {
                _ if unchanged => {}
                Ok(value) => {
                    seen = mark;
                    self.replace(value);
                }
                Err(error) if found_twice => {
                    seen = mark;
                    tracing::error!(what = T::WHAT, %error, "can not be used, the ones before stay in use");
                    metrics::counter!(T::RELOADS, "outcome" => "failed").increment(1);
                }
                Err(_) => {}
            }
        }
    }

    fn replace(&self, value: T) {
        value.in_use();
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
        tracing::info!(what = T::WHAT, "read again");
        metrics::counter!(T::RELOADS, "outcome" => "ok").increment(1);
    }
}

/// Reads the files, and makes a value of them.
fn read_all<T>(paths: &[PathBuf], reader: &Reader<T>) -> (Mark, Result<T, Unusable>) {
    let unusable = |place: usize, cause| Unusable { place, path: paths[place].clone(), cause };
    let mut contents = Vec::with_capacity(paths.len());
    for (place, path) in paths.iter().enumerate() {
        match read(path) {
            Ok(content) => contents.push(content),
            Err(error) => {
                return (Mark::Unreadable(place, error.kind()), Err(unusable(place, Cause::Unreadable(error))));
            }
        }
    }
    let mut digest = Sha256::new();
    for content in &contents {
        digest.update(Sha256::digest(content));
    }
    let value = reader(&contents).map_err(|(place, expected)| unusable(place, Cause::Malformed(expected)));
    (Mark::Readable(digest.finalize().into()), value)
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(content)
}

impl<T> std::fmt::Debug for Live<T> {
    /// Where it comes from; not what it holds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
    use tempfile::TempDir;
    use tokio::time::sleep;

    use super::*;

    const LOOK: Duration = Duration::from_millis(50);

    #[derive(Debug)]
    struct Number(u32);

    impl Content for Number {
        const WHAT: &'static str = "number";
        const RELOADS: &'static str = "test_reloads_total";
    }

    fn number(contents: &[Vec<u8>]) -> Result<Number, Malformed> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.parse().map(Number).map_err(|_| (0, "a number".to_owned()))
    }

    /// A number in a file, watched.
    struct Watched {
        dir: TempDir,
        live: Arc<Live<Number>>,
        metrics: PrometheusHandle,
        _here: metrics::LocalRecorderGuard<'static>,
    }

    impl Watched {
        fn start() -> Self {
            let recorder = PrometheusBuilder::new().build_recorder();
            let metrics = recorder.handle();
            let here = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
            let dir = TempDir::new().unwrap();
            fs::write(dir.path().join("number"), "1").unwrap();
            let live = Arc::new(Live::open(vec![dir.path().join("number")], number).unwrap());
            tokio::spawn(Arc::clone(&live).watch(LOOK));
            Self { dir, live, metrics, _here: here }
        }

        fn write(&self, text: &str) {
            // As Kubernetes does it: what is written is complete before it is seen.
            fs::write(self.dir.path().join("new"), text).unwrap();
            fs::rename(self.dir.path().join("new"), self.dir.path().join("number")).unwrap();
        }

        /// Waits until it was read again so often, with this outcome.
        async fn reloads(&self, outcome: &str, count: usize) {
            let line = format!("test_reloads_total{{outcome=\"{outcome}\"}} {count}\n");
            while !self.metrics.render().contains(&line) {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_right_is_told_once_and_changes_nothing_until_it_is_right() {
        let watched = Watched::start();

        watched.write("two");
        watched.reloads("failed", 1).await;
        assert_eq!(watched.live.now().0, 1);

        sleep(4 * LOOK).await;
        watched.write("3");
        watched.reloads("ok", 1).await;
        watched.reloads("failed", 1).await;
        assert_eq!(watched.live.now().0, 3);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_changes_nothing_either() {
        let watched = Watched::start();

        fs::remove_file(watched.dir.path().join("number")).unwrap();
        watched.reloads("failed", 1).await;

        assert_eq!(watched.live.now().0, 1);
    }

    #[test]
    fn at_the_start_the_file_that_is_not_right_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("number");
        let error = |path: &PathBuf| Live::open(vec![path.clone()], number).unwrap_err().to_string();

        assert!(error(&path).ends_with("number: No such file or directory (os error 2)"), "{}", error(&path));
        fs::write(&path, "one").unwrap();
        assert!(error(&path).ends_with("number: expected a number"), "{}", error(&path));
        fs::write(&path, vec![b'1'; 2 << 20]).unwrap();
        assert!(error(&path).ends_with("number: larger than 1 MiB"), "{}", error(&path));
    }
}
