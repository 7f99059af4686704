//! Finds the server programs and checks their versions.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

const INSTALL_POSTGRES: &str = "apt-get install postgresql (macOS: brew install postgresql)";
const INSTALL_REDIS: &str = "apt-get install redis-server (macOS: brew install redis)";

/// Directories in which programs are searched, in this order.
#[derive(Debug, Clone)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// Searches `directories` only.
    pub fn only(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(directories.into_iter().collect())
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        self.0.iter().map(|dir| dir.join(program)).find(|path| is_program(path))
    }
}

/// `PATH`, then the directories of Debian, Homebrew and postgresql.org, newest version first.
impl Default for SearchPath {
    fn default() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
        for (parent, prefix) in
            [("/usr/lib/postgresql", ""), ("/usr/local/opt", "postgresql"), ("/opt/homebrew/opt", "postgresql")]
        {
            directories.extend(newest_first(Path::new(parent), prefix).map(|dir| dir.join("bin")));
        }
        directories.extend(["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/local/pgsql/bin"].map(Into::into));
        Self(directories)
    }
}

/// Paths of the server programs, with checked versions.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) redis: PathBuf,
}

impl Binaries {
    pub(crate) fn find(search_path: &SearchPath) -> Result<Self, Error> {
        let missing = |program, install| Error::Missing { program, install };
        let initdb = search_path.find("initdb").ok_or(missing("initdb", INSTALL_POSTGRES))?;
        let postgres = Some(initdb.with_file_name("postgres")).filter(|path| is_program(path));
        let postgres = postgres.ok_or(missing("postgres", INSTALL_POSTGRES))?;
        check(&postgres, |_| ("Postgres 15", (15, 0)), INSTALL_POSTGRES)?;
        Ok(Self { initdb, postgres, redis: find_redis(search_path)? })
    }
}

/// Returns the path of the Redis or Valkey server, with a checked version.
pub(crate) fn find_redis(search_path: &SearchPath) -> Result<PathBuf, Error> {
    let redis = search_path.find("redis-server").or_else(|| search_path.find("valkey-server"));
    let redis = redis.ok_or(Error::Missing { program: "redis-server", install: INSTALL_REDIS })?;
    check(&redis, min_redis_version, INSTALL_REDIS)?;
    Ok(redis)
}

/// Oldest supported version: the name for messages, and (major, minor).
type MinVersion = (&'static str, (u32, u32));

/// Valkey continues Redis 7.2 and is often installed as `redis-server`.
fn min_redis_version(output: &str) -> MinVersion {
    if output.contains("Redis server") { ("Redis 7.0", (7, 0)) } else { ("Valkey 7.2", (7, 2)) }
}

fn check(program: &Path, min_version: impl Fn(&str) -> MinVersion, install: &'static str) -> Result<(), Error> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(Error::system("run", program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (needed, min) = min_version(&text);
    match version(&text) {
        Some(version) if version >= min => Ok(()),
        _ => Err(Error::TooOld {
            program: program.to_owned(),
            found: text.lines().next().unwrap_or("of unknown version").to_owned(),
            needed,
            install,
        }),
    }
}

/// Parses `postgres (PostgreSQL) 15.18 (...)`, `16beta1` and `Redis server v=7.0.15 sha=...`.
fn version(output: &str) -> Option<(u32, u32)> {
    let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    let text = output.split([' ', '=']).find(is_number)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Some((major, minor))
}

fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?.trim_start_matches('@');
            Some((rest.parse().unwrap_or(0), entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path)
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_all_servers_are_read() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(version("postgres (PostgreSQL) 18beta2\n"), Some((18, 0)));
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"), Some((7, 0)));
        assert_eq!(version("Server v=7.2.5 sha=00000000:0"), Some((7, 2)));
        assert_eq!(version("no idea"), None);
    }
}
