//! Secrets in files: what orchestrators mount, so that no environment and no list of processes shows them.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clap::Arg;

use super::{Usage, flag};

/// More than any URL, and an end to a file that has none.
const BYTES_MAX: u64 = 64 << 10;

/// The variable that names the file of a secret, e.g. `TIDINGS_REDIS_URL_FILE`; `None` if it is no secret.
pub(super) fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    (arg.is_hide_env_values_set() && arg.get_action().takes_values()).then(|| format!("{name}_FILE"))
}

impl Usage {
    /// Adds what files say to the command line, which nobody but this process sees.
    pub(super) fn take_files(&mut self) {
        for arg in self.find(|arg| variable(arg).is_some()) {
            let Some((name, path)) = variable(&arg).and_then(|name| Some((name.clone(), env::var_os(name)?))) else {
                continue;
            };
            if self.is_given(&arg) {
                let line = format!("{}: given with {name}: expected one of them", self.title(&arg));
                self.lines.push(line);
                self.forget(&arg);
                continue;
            }
            self.from_files.insert(flag(&arg));
            match read(Path::new(&path)) {
                Ok(secret) => {
                    let argument = format!("{}={}", flag(&arg), secret.trim());
                    self.arguments.insert(self.begin, OsString::from(argument));
                }
                Err(error) => {
                    let line = format!("{}: '{}': can not be read: {error}", self.title(&arg), path.display());
                    self.lines.push(line);
                    self.forget(&arg);
                }
            }
        }
    }

    /// Whether the command line or the environment has a value.
    fn is_given(&self, arg: &Arg) -> bool {
        let (flag, with_value) = (flag(arg), format!("{}=", flag(arg)));
        let before = self.arguments.iter().take_while(|argument| *argument != "--");
        let mut texts = before.map(|argument| argument.to_string_lossy());
        arg.get_env().is_some_and(|name| env::var_os(name).is_some())
            || texts.any(|text| text == flag.as_str() || text.starts_with(&with_value))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut secret = String::new();
    File::open(path)?.take(BYTES_MAX).read_to_string(&mut secret)?;
    Ok(secret)
}
