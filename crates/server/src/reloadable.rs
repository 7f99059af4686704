//! Values parsed from files and reloaded when the files change: certificates, tokens.
//!
//! The files are polled. File system notifications would miss how Kubernetes updates a mounted
//! secret: it swaps a symlink two directories above.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

/// Maximum size of a file: above any list of certificates or tokens, and a bound on memory if a
/// path names something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Mark at the beginning of a file that some editors write to mark its encoding.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A value that is parsed from files.
pub(crate) trait ReloadableContent: Send + Sync + 'static {
    /// Name of the value in the log, e.g. `certificates`.
    const NAME: &'static str;
    /// Name of the counter of reloads, labelled with `outcome`.
    const RELOADS_METRIC: &'static str;

    /// Called when the value comes into use.
    fn on_activate(&self) {}
}

/// A file that cannot be used, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub(crate) struct UnusableFile {
    /// Index of the file among the paths.
    pub(crate) index: usize,
    pub(crate) path: PathBuf,
    pub(crate) cause: FileProblem,
}

/// A defect of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// The file does not have the expected content.
    #[error("expected {0}")]
    Malformed(String),
}

/// The index of a malformed file among the paths, and the content that was expected.
pub(crate) type MalformedFile = (usize, String);

/// Parses a value from the contents of all files, in the order of their paths.
type ParseContents<T> = dyn Fn(&[Vec<u8>]) -> Result<T, MalformedFile> + Send + Sync;

/// A value parsed from files: that of the last valid content.
pub(crate) struct Reloadable<T> {
    paths: Vec<PathBuf>,
    parse: Box<ParseContents<T>>,
    value: RwLock<Arc<T>>,
    opened: Fingerprint,
}

/// Distinguishes two states of the files without keeping their contents, which may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fingerprint {
    Readable([u8; 32]),
    Unreadable(usize, io::ErrorKind),
}

impl<T: ReloadableContent> Reloadable<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first file that cannot be used, and the reason.
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, MalformedFile> + Send + Sync + 'static,
    ) -> Result<Self, UnusableFile> {
        let (opened, value) = read_all(&paths, &parse);
        let value = value?;
        value.on_activate();
        for outcome in ["ok", "failed"] {
            metrics::counter!(T::RELOADS_METRIC, "outcome" => outcome).increment(0);
        }
        Ok(Self { paths, parse: Box::new(parse), value: RwLock::new(Arc::new(value)), opened })
    }

    /// Returns the current value.
    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.value.read())
    }

    /// Polls the files at this interval and reloads the value when they have changed; runs until
    /// dropped.
    ///
    /// Invalid content changes nothing. An error is logged once, and only when two polls in a row
    /// find it: files that belong together are often written one after the other.
    pub(crate) async fn watch(self: Arc<Self>, poll_interval: Duration) {
        let mut ticks = interval(poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut loaded, mut suspected) = (self.opened, None);
        loop {
            ticks.tick().await;
            let reloadable = Arc::clone(&self);
            // A file system that hangs must not block calls.
            let polled = tokio::task::spawn_blocking(move || read_all(&reloadable.paths, &*reloadable.parse)).await;
            let Ok((fingerprint, value)) = polled else { continue };
            let unchanged = fingerprint == loaded;
            let found_twice = suspected.replace(fingerprint) == Some(fingerprint);
            match value {
                _ if unchanged => {}
                Ok(value) => {
                    loaded = fingerprint;
                    self.replace(value);
                }
                Err(error) if found_twice => {
                    loaded = fingerprint;
                    tracing::error!(content = T::NAME, %error, "reload failed, keeping the previous content");
                    metrics::counter!(T::RELOADS_METRIC, "outcome" => "failed").increment(1);
                }
                Err(_) => {}
            }
        }
    }

    fn replace(&self, value: T) {
        value.on_activate();
        *self.value.write() = Arc::new(value);
        tracing::info!(content = T::NAME, "reloaded");
        metrics::counter!(T::RELOADS_METRIC, "outcome" => "ok").increment(1);
    }
}

/// Reads the files and parses them into a value.
fn read_all<T>(paths: &[PathBuf], parse: &ParseContents<T>) -> (Fingerprint, Result<T, UnusableFile>) {
    let unusable = |index: usize, cause| UnusableFile { index, path: paths[index].clone(), cause };
    let mut contents = Vec::with_capacity(paths.len());
    for (index, path) in paths.iter().enumerate() {
        match read(path) {
            Ok(content) => contents.push(content),
            Err(error) => {
                return (
                    Fingerprint::Unreadable(index, error.kind()),
                    Err(unusable(index, FileProblem::Unreadable(error))),
                );
            }
        }
    }
    let mut digest = Sha256::new();
    for content in &contents {
        digest.update(Sha256::digest(content));
    }
    let value = parse(&contents).map_err(|(index, expected)| unusable(index, FileProblem::Malformed(expected)));
    (Fingerprint::Readable(digest.finalize().into()), value)
}

/// Reads a file, without the byte order mark that an editor may have put at its beginning.
fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

impl<T> std::fmt::Debug for Reloadable<T> {
    /// Shows the paths, not the contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloadable").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
    use tempfile::TempDir;
    use tokio::time::sleep;

    use super::*;

    const POLL_INTERVAL: Duration = Duration::from_millis(50);

    #[derive(Debug)]
    struct Number(u32);

    impl ReloadableContent for Number {
        const NAME: &'static str = "number";
        const RELOADS_METRIC: &'static str = "test_reloads_total";
    }

    fn number(contents: &[Vec<u8>]) -> Result<Number, MalformedFile> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.parse().map(Number).map_err(|_| (0, "a number".to_owned()))
    }

    /// A number in a file that is watched for changes.
    struct WatchedFile {
        dir: TempDir,
        reloadable: Arc<Reloadable<Number>>,
        metrics: PrometheusHandle,
        _here: metrics::LocalRecorderGuard<'static>,
    }

    impl WatchedFile {
        fn start() -> Self {
            let recorder = PrometheusBuilder::new().build_recorder();
            let metrics = recorder.handle();
            let here = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
            let dir = TempDir::new().unwrap();
            fs::write(dir.path().join("number"), "1").unwrap();
            let reloadable = Arc::new(Reloadable::open(vec![dir.path().join("number")], number).unwrap());
            tokio::spawn(Arc::clone(&reloadable).watch(POLL_INTERVAL));
            Self { dir, reloadable, metrics, _here: here }
        }

        fn write(&self, text: &str) {
            // Complete before it becomes visible, as in Kubernetes.
            fs::write(self.dir.path().join("new"), text).unwrap();
            fs::rename(self.dir.path().join("new"), self.dir.path().join("number")).unwrap();
        }

        /// Waits until the counter of reloads with this outcome has this value.
        async fn reloads(&self, outcome: &str, count: usize) {
            let line = format!("test_reloads_total{{outcome=\"{outcome}\"}} {count}\n");
            while !self.metrics.render().contains(&line) {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// The next valid content is loaded.
    #[tokio::test]
    async fn an_invalid_file_is_counted_once_and_changes_nothing() {
        let watched = WatchedFile::start();

        watched.write("two");
        watched.reloads("failed", 1).await;
        assert_eq!(watched.reloadable.current().0, 1);

        sleep(4 * POLL_INTERVAL).await;
        watched.write("3");
        watched.reloads("ok", 1).await;
        watched.reloads("failed", 1).await;
        assert_eq!(watched.reloadable.current().0, 3);
    }

    #[tokio::test]
    async fn a_removed_file_changes_nothing() {
        let watched = WatchedFile::start();

        fs::remove_file(watched.dir.path().join("number")).unwrap();
        watched.reloads("failed", 1).await;

        assert_eq!(watched.reloadable.current().0, 1);
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "\u{feff}1").unwrap();

        assert_eq!(Reloadable::open(vec![path], number).unwrap().current().0, 1);
    }

    #[test]
    fn the_first_read_names_the_invalid_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("number");
        let error = |path: &PathBuf| Reloadable::open(vec![path.clone()], number).unwrap_err().to_string();

        assert!(error(&path).ends_with("number: No such file or directory (os error 2)"), "{}", error(&path));
        fs::write(&path, "one").unwrap();
        assert!(error(&path).ends_with("number: expected a number"), "{}", error(&path));
        fs::write(&path, vec![b'1'; 2 << 20]).unwrap();
        assert!(error(&path).ends_with("number: larger than 1 MiB"), "{}", error(&path));
    }
}
