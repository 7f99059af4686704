//! Whom the servers run as: Postgres refuses to be root.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::{Error, guard};

/// An unprivileged user that root lends its servers to.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Returns the account to drop to, `None` if this process is not root.
    pub(crate) fn for_servers() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let known = ["postgres", "nobody"].into_iter().find_map(Self::named);
        known.map(Some).ok_or(Error::NoAccount)
    }

    fn named(user: &str) -> Option<Self> {
        Some(Self { uid: id("-u", user)?, gid: id("-g", user)? })
    }

    /// Makes `command` run as this user.
    pub(crate) fn take_on(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives `path` to this user.
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Reports whether this user may search `dir` and every parent of it, by trying.
    pub(crate) fn reaches(&self, dir: &Path) -> bool {
        let mut visit = guard::shell(r#"cd "$1""#, Some(self));
        visit.arg("visit").arg(dir);
        visit.status().is_ok_and(|status| status.success())
    }
}

/// Asks `id`, which knows of directory services that `/etc/passwd` does not.
fn id(which: &str, user: &str) -> Option<u32> {
    let answer = Command::new("id").args([which, user]).output().ok()?;
    String::from_utf8_lossy(&answer.stdout).trim().parse().ok()
}
