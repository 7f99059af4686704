//! The system user of the servers, because Postgres refuses to run as root, and its shell.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;

/// An unprivileged user that runs the servers of a root process.
#[derive(Debug, Clone)]
pub(crate) struct ServerAccount {
    uid: u32,
    gid: u32,
}

impl ServerAccount {
    /// Returns the user to switch to, `None` if this process is not root.
    pub(crate) fn for_servers() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let account = ["postgres", "nobody"].into_iter().find_map(Self::named);
        account.map(Some).ok_or(Error::NoAccount)
    }

    fn named(user: &str) -> Option<Self> {
        Some(Self { uid: id("-u", user)?, gid: id("-g", user)? })
    }

    /// Makes `command` run as this user.
    pub(crate) fn apply_to(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of `path`.
    pub(crate) fn chown(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Returns true if this user can enter `dir`; tries it, because every parent counts.
    pub(crate) fn can_reach(&self, dir: &Path) -> bool {
        let mut enter = shell(r#"cd "$1""#, Some(self));
        enter.arg("enter").arg(dir);
        enter.status().is_ok_and(|status| status.success())
    }
}

/// Prepares a shell `script` as `account`, in its own process group and without our streams.
pub(crate) fn shell(script: &str, account: Option<&ServerAccount>) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(account) = account {
        account.apply_to(&mut command);
    }
    command
}

/// Returns the uid (`-u`) or gid (`-g`) of a user. The command also asks directory services.
fn id(option: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([option, user]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
