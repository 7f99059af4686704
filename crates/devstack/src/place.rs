//! The directory of a stack: who owns it, where the data lie, and when it may go.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::account::Account;
use crate::{Dir, Error, guard};

/// Where the data lie when the servers' user may not search the directory.
const ELSEWHERE: &str = "/var/lib/tidings";

/// Whose data lie in a directory, each in one of its own.
const SERVERS: [&str; 2] = ["postgres", "redis"];

/// How long the servers of an earlier owner may take to end; their guards kill them after 20 s.
const LINGER: Duration = Duration::from_secs(25);

/// How long the keeper of a temporary directory may take to remove it.
const REMOVAL: Duration = Duration::from_secs(10);

/// Waits until nobody holds the other end of stdin, neither the owner nor a guard, and removes `$1`.
const KEEPER: &str = r#"trap '' HUP INT QUIT TERM; read -r _; rm -rf -- "$1""#;

/// A directory that this process owns.
#[derive(Debug)]
pub(crate) struct Place {
    /// What the caller named; holds the logs.
    dir: PathBuf,
    /// Holds the data: `dir` itself, if the servers' user can get there.
    home: PathBuf,
    account: Option<Account>,
    /// A copy goes to every guard. For a kept directory it carries a lock, for a temporary one it holds off the keeper.
    hold: Option<OwnedFd>,
    keeper: Option<Child>,
    _owner: Option<File>,
}

impl Place {
    /// Takes the directory; waits for the servers of an earlier owner that was killed.
    pub(crate) async fn take(dir: &Dir) -> Result<Self, Error> {
        let account = Account::for_servers()?;
        match dir {
            Dir::Kept(dir) => Self::keep(dir, account).await,
            Dir::Temporary => Self::borrow(account),
        }
    }

    async fn keep(dir: &Path, account: Option<Account>) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::system("create", dir))?;
        let dir = dir.canonicalize().map_err(Error::system("find", dir))?;
        let owner = lock_as_owner(&dir)?;
        let hold = outlast_earlier_servers(&dir).await?;
        let home = match &account {
            Some(account) if !account.reaches(&dir) => move_out(&dir, account)?,
            _ => dir.clone(),
        };
        Ok(Self { dir, home, account, hold: Some(hold.into()), keeper: None, _owner: Some(owner) })
    }

    fn borrow(account: Option<Account>) -> Result<Self, Error> {
        let mut parent = std::env::temp_dir();
        if account.as_ref().is_some_and(|account| !account.reaches(&parent)) {
            parent = "/tmp".into();
        }
        let dir = tempfile::Builder::new().prefix("tidings-").tempdir_in(&parent);
        let dir = dir.map_err(Error::system("create a directory in", &parent))?;
        give(dir.path(), account.as_ref())?;

        let (reader, hold) = io::pipe().map_err(Error::system("open a pipe for", dir.path()))?;
        let mut keeper = guard::shell(KEEPER, None); // who made it in its parent can remove it
        keeper.args(["tidings-keeper".as_ref(), dir.path()]).stdin(reader);
        let keeper = keeper.spawn().map_err(Error::system("guard", dir.path()))?;

        let dir = dir.keep();
        Ok(Self { home: dir.clone(), dir, account, hold: Some(hold.into()), keeper: Some(keeper), _owner: None })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the data called `name` lie, whether they exist or not.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Makes the directory for the data called `name`, unless it is there.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.data(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(Error::system("create", &path))?;
        give(&path, self.account.as_ref())?;
        Ok(path)
    }

    /// Removes the data of earlier starts.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        SERVERS.iter().try_for_each(|server| remove(&self.data(server)))
    }

    /// Where `server` writes its log.
    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.dir.join(format!("{server}.log"))
    }

    /// Prepares `program` so that it ends, and only then the directory, when this process ends.
    pub(crate) fn guarded(&self, program: &Path, signals: &str) -> Result<Command, Error> {
        let hold = self.hold.as_ref().map(OwnedFd::try_clone).transpose();
        let hold = hold.map_err(Error::system("hold", &self.dir))?;
        let hold = hold.ok_or_else(|| Error::Lingering { dir: self.dir.clone() })?;
        Ok(guard::guarded(program, signals, self.account.as_ref(), hold))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hold = None;
        if let Some(keeper) = &mut self.keeper {
            let deadline = Instant::now() + REMOVAL;
            while matches!(keeper.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Locks `dir` for this process and writes down which one that is.
fn lock_as_owner(dir: &Path) -> Result<File, Error> {
    let path = dir.join("owner.lock");
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

/// Waits for the lock that every guard shares with its owner and keeps as long as its server lives.
async fn outlast_earlier_servers(dir: &Path) -> Result<File, Error> {
    let hold = File::open(dir).map_err(Error::system("open", dir))?;
    let deadline = Instant::now() + LINGER;
    loop {
        match hold.try_lock() {
            Ok(()) => return Ok(hold),
            Err(TryLockError::Error(cause)) => return Err(Error::system("lock", dir)(cause)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(Error::Lingering { dir: dir.to_owned() });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Lets the data of `dir` lie where the servers' user can get, with symlinks in their place.
fn move_out(dir: &Path, account: &Account) -> Result<PathBuf, Error> {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let name = digest.iter().take(6).fold(0_u64, |name, &byte| name << 8 | u64::from(byte));
    let home = Path::new(ELSEWHERE).join(format!("{name:012x}"));
    fs::create_dir_all(&home).map_err(Error::system("create", &home))?;
    account.own(&home).map_err(Error::system("give away", &home))?;
    for server in SERVERS {
        let (link, data) = (dir.join(server), home.join(server));
        if fs::read_link(&link).is_ok_and(|target| target == data) {
            continue;
        }
        // Without a link these are data of a directory that was removed: whoever did that wants to start anew.
        remove(&data)?;
        symlink(&data, &link).map_err(Error::system("create the symlink", &link))?;
    }
    Ok(home)
}

fn give(path: &Path, account: Option<&Account>) -> Result<(), Error> {
    let given = account.map_or(Ok(()), |account| account.own(path));
    given.map_err(Error::system("give away", path))
}

/// Removes a directory and all in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::system("remove", path)(cause)),
        _ => Ok(()),
    }
}
