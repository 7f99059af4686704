//! `tidings token`: make the tokens by which services know their callers.

mod list;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidings_server::auth::{Line, Scopes, Secret};

use crate::cli::Output;
use crate::{error, out};

const HOW: &str = "\
A service knows tokens by a list, its --token-file (TIDINGS_TOKEN_FILE): one line
for each, `NAME SHA256 SCOPES`, and comments after #. The list holds no secrets;
the token itself is shown once, here. Callers send it as `authorization: Bearer
TOKEN`; `tidings` and the history service read it from a file, their --token-file
and --broadcast-token-file.

A scope is SERVICE:ACTION, of user, history, lock, broadcast or * (all of them)
and read, write, admin. Each stands for itself: write does not include read. Which
method needs which is in docs/methods.md.

To exchange a token without a failed call: add a new one of the same name to the
list, give it to the caller, then take the old line away. Services read the list
again within a second or two.

Examples:
  tidings token new --name gateway --scope history:read --scope history:write
  tidings token new --name relay --scope broadcast:write --out relay.token --append tokens";

/// Make tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    New(New),
}

/// Make a token, and the line by which services know it.
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
struct New {
    /// Whose it is, 1 to 64 of [A-Za-z0-9._~-]; several tokens may have one name
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What it is good for, SERVICE:ACTION; may be given more than once, or several separated by commas
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<Scopes>,

    /// Write the token to a new file that only you can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Add the line to this list, which is made if absent, instead of printing it
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,

    /// How to print what is not written to files
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name is none.
    #[error("--name: '{0}': expected 1 to 64 of [A-Za-z0-9._~-]")]
    Name(String),
    /// The token can not be written.
    #[error("--out: '{path}': {cause}")]
    Out { path: String, cause: io::Error },
    /// The list can not be written, or is none.
    #[error("--append: '{path}': {problem}")]
    Append { path: String, problem: String },
}

impl Error {
    /// What the process ends with.
    #[expect(clippy::unused_self, reason = "as that of every verb")]
    pub(crate) fn exit_code(&self) -> u8 {
        error::USAGE
    }
}

/// Does what the verb says.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let Verb::New(new) = args.verb;
    let secret = Secret::generate();
    let scopes = new.scope.into_iter().fold(Scopes::default(), Scopes::and);
    let line = Line::new(&new.name, secret.hash(), scopes).map_err(|_| Error::Name(new.name))?;
    if let Some(path) = &new.out {
        write(path, &secret).map_err(|cause| Error::Out { path: path.display().to_string(), cause })?;
    }
    if let Some(path) = &new.append
        && let Err(problem) = list::append(path, &line)
    {
        // Nobody would know the token.
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
    // A token that is there is not overwritten: somebody may live by it.
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
