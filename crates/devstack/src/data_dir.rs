//! The directory of a stack: ownership, location of the data, and removal.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::account::{ServerAccount, shell};
use crate::error::Error;
use crate::guard;
use crate::options::Dir;

/// Root of the data if the servers' user cannot enter the directory.
const FALLBACK_ROOT: &str = "/var/lib/tidings";

/// The file that marks a directory as that of a stack; its owner holds a lock on it.
const OWNER_LOCK: &str = "owner.lock";

/// Servers with a data directory of their own.
const SERVERS: [&str; 2] = ["postgres", "redis"];

/// Longest wait for the servers of an earlier owner, whose guards kill them after 20 s.
const EARLIER_SERVERS_TIMEOUT: Duration = Duration::from_secs(25);

/// Longest wait for the removal of a temporary directory.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Shell script that waits for EOF of stdin, which owner and guards keep open, and removes `$1`.
const REMOVE_AT_END: &str = r#"trap '' HUP INT QUIT TERM; read -r _; rm -rf -- "$1""#;

/// A directory of data and logs that this process owns.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// The directory that the caller named; holds the logs.
    dir: PathBuf,
    /// The directory of the data: `dir`, if the servers' user can enter it.
    data_root: PathBuf,
    account: Option<ServerAccount>,
    /// A descriptor that every guard inherits: the lock of a kept directory, or the pipe that
    /// delays the removal of a temporary one.
    lifeline: Option<OwnedFd>,
    remover: Option<Child>,
    _owner: Option<File>,
}

impl DataDir {
    /// Takes ownership of the directory. Waits for the servers of an earlier owner that was killed.
    pub(crate) async fn acquire(dir: &Dir) -> Result<Self, Error> {
        let account = ServerAccount::for_servers()?;
        match dir {
            Dir::Kept(dir) => Self::open_kept(dir, account).await,
            Dir::Temporary => Self::create_temporary(account),
        }
    }

    async fn open_kept(dir: &Path, account: Option<ServerAccount>) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::system("create", dir))?;
        let dir = dir.canonicalize().map_err(Error::system("find", dir))?;
        check_origin(&dir)?;
        let owner = lock_as_owner(&dir)?;
        let lifeline = wait_for_earlier_servers(&dir).await?;
        let data_root = match &account {
            Some(account) if !account.can_reach(&dir) => use_fallback_root(&dir, account)?,
            _ => dir.clone(),
        };
        Ok(Self { dir, data_root, account, lifeline: Some(lifeline.into()), remover: None, _owner: Some(owner) })
    }

    fn create_temporary(account: Option<ServerAccount>) -> Result<Self, Error> {
        let mut parent = std::env::temp_dir();
        if account.as_ref().is_some_and(|account| !account.can_reach(&parent)) {
            parent = "/tmp".into();
        }
        let dir = tempfile::Builder::new().prefix("tidings-").tempdir_in(&parent);
        let dir = dir.map_err(Error::system("create a directory in", &parent))?;
        chown_to(dir.path(), account.as_ref())?;

        let (reader, lifeline) = io::pipe().map_err(Error::system("open a pipe for", dir.path()))?;
        // Runs as the user that created the directory and can therefore remove it.
        let mut remover = shell(REMOVE_AT_END, None);
        remover.args(["tidings-remover".as_ref(), dir.path()]).stdin(reader);
        let remover = remover.spawn().map_err(Error::system("guard", dir.path()))?;

        let dir = dir.keep();
        Ok(Self {
            data_root: dir.clone(),
            dir,
            account,
            lifeline: Some(lifeline.into()),
            remover: Some(remover),
            _owner: None,
        })
    }

    /// Returns true if the directory is removed when its owner ends.
    pub(crate) fn is_temporary(&self) -> bool {
        self.remover.is_some()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the data `name`, which may not exist.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.data_root.join(name)
    }

    /// Creates the directory of the data `name`, if absent.
    pub(crate) fn create_data(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.data(name);
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        created.map_err(Error::system("create", &path))?;
        chown_to(&path, self.account.as_ref())?;
        Ok(path)
    }

    /// Removes the data of earlier starts.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        SERVERS.iter().try_for_each(|server| remove(&self.data(server)))
    }

    /// Returns the path of the log of `server`.
    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.dir.join(format!("{server}.log"))
    }

    /// Prepares `program` with a guard: it ends when this process ends.
    ///
    /// The directory is released or removed only after that.
    pub(crate) fn guarded(&self, program: &Path, signals: &str) -> Result<Command, Error> {
        let lifeline = self.lifeline.as_ref().map(OwnedFd::try_clone).transpose();
        let lifeline = lifeline.map_err(Error::system("duplicate the lock of", &self.dir))?;
        let lifeline = lifeline.ok_or_else(|| Error::Lingering { dir: self.dir.clone() })?;
        Ok(guard::guarded(program, signals, self.account.as_ref(), lifeline))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        self.lifeline = None;
        if let Some(remover) = &mut self.remover {
            let deadline = Instant::now() + REMOVAL_TIMEOUT;
            while matches!(remover.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Checks that the data in `dir`, which may be removed, are those of an earlier stack.
fn check_origin(dir: &Path) -> Result<(), Error> {
    let exists = |name: &str| dir.join(name).symlink_metadata().is_ok();
    match SERVERS.into_iter().find(|server| exists(server)) {
        Some(server) if !exists(OWNER_LOCK) => Err(Error::Foreign { data: dir.join(server) }),
        _ => Ok(()),
    }
}

/// Locks `dir` for this process and records its pid.
fn lock_as_owner(dir: &Path) -> Result<File, Error> {
    let path = dir.join(OWNER_LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(Error::system("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let dir = dir.to_owned();
            return Err(Error::InUse { dir, pid });
        }
        Err(TryLockError::Error(cause)) => return Err(Error::system("lock", &path)(cause)),
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(Error::system("write", &path))?;
    Ok(file)
}

/// Waits for the lock that every guard shares with its owner until its server has ended.
async fn wait_for_earlier_servers(dir: &Path) -> Result<File, Error> {
    let lifeline = File::open(dir).map_err(Error::system("open", dir))?;
    let deadline = Instant::now() + EARLIER_SERVERS_TIMEOUT;
    loop {
        match lifeline.try_lock() {
            Ok(()) => return Ok(lifeline),
            Err(TryLockError::Error(cause)) => return Err(Error::system("lock", dir)(cause)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(Error::Lingering { dir: dir.to_owned() });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Puts the data of `dir` below the fallback root, with symlinks to it in `dir`.
fn use_fallback_root(dir: &Path, account: &ServerAccount) -> Result<PathBuf, Error> {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let name = digest.iter().take(6).fold(0_u64, |name, &byte| name << 8 | u64::from(byte));
    let data_root = Path::new(FALLBACK_ROOT).join(format!("{name:012x}"));
    fs::create_dir_all(&data_root).map_err(Error::system("create", &data_root))?;
    account.chown(&data_root).map_err(Error::system("change the owner of", &data_root))?;
    for server in SERVERS {
        let (link, data) = (dir.join(server), data_root.join(server));
        if fs::read_link(&link).is_ok_and(|target| target == data) {
            continue;
        }
        // Data without a symlink belong to a directory that was removed, so they are removed too.
        remove(&data)?;
        symlink(&data, &link).map_err(Error::system("create the symlink", &link))?;
    }
    Ok(data_root)
}

fn chown_to(path: &Path, account: Option<&ServerAccount>) -> Result<(), Error> {
    let changed = account.map_or(Ok(()), |account| account.chown(path));
    changed.map_err(Error::system("change the owner of", path))
}

/// Removes a directory with its contents, if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::system("remove", path)(cause)),
        _ => Ok(()),
    }
}
