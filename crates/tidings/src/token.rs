//! `tidings token`: creates the tokens by which services authenticate their callers.

mod list;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidings_server::auth::{Scopes, Secret, TokenEntry};

use crate::args::Output;
use crate::{exit, out};

const HELP: &str = "\
Token list:
  A service reads its token list from --token-file (TIDINGS_TOKEN_FILE): one
  line for each token, `NAME SHA256 SCOPES`, and comments after #. The list
  holds hashes, not tokens; the token itself is printed only once, by this
  command. Callers send it as `authorization: Bearer TOKEN`. `tidings` reads it
  from its --token-file, the history service from its --broadcast-token-file.

Scopes:
  SERVICE:ACTION, with SERVICE one of user, history, lock, broadcast and * (all)
  and ACTION one of read, write and admin. No action includes another: write
  does not include read. docs/methods.md lists the scope of every method.

Rotation without failed calls:
  Append a new token of the same name to the list, give it to the caller, then
  remove the old line. Services reload the list within two seconds.

Examples:
  tidings token new --name gateway --scope history:read --scope history:write
  tidings token new --name relay --scope broadcast:write,broadcast:relay --out relay.token --append tokens";

/// Create tokens by which services authenticate their callers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    New(NewToken),
}

/// Create a token, and its line for the token lists of services
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
struct NewToken {
    /// Name of the caller, 1 to 64 of [A-Za-z0-9._~-]; several tokens may have the same name
    #[arg(long, value_name = "NAME")]
    name: String,

    /// Scope, SERVICE:ACTION; may be given more than once, or several separated by commas
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<Scopes>,

    /// Write the token to a new file with mode 0600 instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Append the line to this token list (created if absent) instead of printing it
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,

    /// Output format of the parts that are not written to files
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// Error of `tidings token`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name is malformed.
    #[error("--name: '{0}': expected 1 to 64 of [A-Za-z0-9._~-]")]
    Name(String),
    /// The file for the token cannot be created or written.
    #[error("--out: '{path}': {cause}")]
    Out { path: String, cause: io::Error },
    /// The list cannot be written, or the file is no token list.
    #[error("--append: '{path}': {problem}")]
    Append { path: String, problem: String },
}

impl Error {
    /// Returns the exit code of the process.
    #[expect(clippy::unused_self, reason = "same signature as in every verb")]
    pub(crate) fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let Verb::New(new) = args.verb;
    let secret = Secret::generate();
    let scopes = new.scope.into_iter().fold(Scopes::default(), Scopes::and);
    let line = TokenEntry::new(&new.name, secret.hash(), scopes).map_err(|_| Error::Name(new.name))?;
    if let Some(path) = &new.out {
        write(path, &secret).map_err(|cause| Error::Out { path: path.display().to_string(), cause })?;
    }
    if let Some(path) = &new.append
        && let Err(problem) = list::append(path, &line)
    {
        // No service would accept the token.
        if let Some(out) = &new.out {
            let _ = fs::remove_file(out);
        }
        return Err(Error::Append { path: path.display().to_string(), problem });
    }
    let token = new.out.is_none().then(|| secret.reveal());
    let line = new.append.is_none().then(|| line.to_string());
    print(token, line.as_deref(), new.output);
    Ok(())
}

fn write(path: &Path, secret: &Secret) -> io::Result<()> {
    // An existing token is not overwritten: a caller may still use it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", secret.reveal())?;
    file.sync_all()
}

fn print(token: Option<&str>, line: Option<&str>, output: Output) {
    let parts = [("token", token), ("line", line)].into_iter().filter_map(|(name, part)| Some((name, part?)));
    match output {
        Output::Table => parts.for_each(|(name, part)| out::result(format_args!("{name:5}  {part}"))),
        output => out::result(output.json(&parts.map(|(name, part)| (name.to_owned(), json!(part))).collect())),
    }
}
