//! Secrets from mounted files, so that they appear in no environment and no process list.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use clap::Arg;

use super::{CommandLine, flag};

/// Mark at the beginning of a file that some editors write to mark its encoding.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Maximum size of a secret: above any URL, and a bound for an endless file.
const BYTES_MAX: u64 = 64 << 10;

/// Returns the variable that names the file of a secret, e.g. `TIDINGS_REDIS_URL_FILE`; `None` if
/// the flag is no secret.
pub(super) fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    (arg.is_hide_env_values_set() && arg.get_action().takes_values()).then(|| format!("{name}_FILE"))
}

impl CommandLine {
    /// Adds secrets from files to the command line in memory, which no other process sees.
    pub(super) fn load_secret_files(&mut self) {
        for arg in self.find(|arg| variable(arg).is_some()) {
            let Some((name, path)) = variable(&arg).and_then(|name| Some((name.clone(), super::set_variable(&name)?)))
            else {
                continue;
            };
            if self.is_given(&arg) {
                let line = format!("{}: given with {name}: expected one of them", self.title(&arg));
                self.lines.push(line);
                self.drop_flag(&arg);
                continue;
            }
            self.from_files.insert(flag(&arg));
            match read(Path::new(&path)) {
                Ok(secret) => {
                    let argument = format!("{}={}", flag(&arg), secret.trim_start_matches(BYTE_ORDER_MARK).trim());
                    self.arguments.insert(self.first_argument, OsString::from(argument));
                }
                Err(error) => {
                    let line = format!("{}: '{}': cannot be read: {error}", self.title(&arg), path.display());
                    self.lines.push(line);
                    self.drop_flag(&arg);
                }
            }
        }
    }

    /// Returns whether the command line or the environment has a value.
    fn is_given(&self, arg: &Arg) -> bool {
        let (flag, with_value) = (flag(arg), format!("{}=", flag(arg)));
        let before = self.arguments.iter().take_while(|argument| *argument != "--");
        let mut texts = before.map(|argument| argument.to_string_lossy());
        arg.get_env().is_some_and(|name| super::set_variable(name).is_some())
            || texts.any(|text| text == flag.as_str() || text.starts_with(&with_value))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut secret = String::new();
    File::open(path)?.take(BYTES_MAX).read_to_string(&mut secret)?;
    Ok(secret)
}
