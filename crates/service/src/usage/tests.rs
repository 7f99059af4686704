//! Errors of invalid command lines. Environment and files are tested with the real program.

use clap::CommandFactory as _;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "test")]
enum TestCommand {
    Serve {
        #[arg(long, env = "TIDINGS_TEST_DRAIN", value_parser = tidings_server::duration)]
        drain: Option<humantime::Duration>,
        #[arg(long, env = "TIDINGS_TEST_URL", hide_env_values = true, value_name = "URL", value_parser = url)]
        url: String,
        #[arg(long, env = "TIDINGS_TEST_COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: Option<u32>,
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<std::net::SocketAddr>,
        #[arg(long, env = "TIDINGS_TEST_MIGRATE", conflicts_with = "listen")]
        migrate: bool,
    },
    Look {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

fn url(text: &str) -> Result<String, &'static str> {
    if text.starts_with("postgres://") { Ok(text.to_owned()) } else { Err("expected postgres://HOST/DATABASE") }
}

/// Returns the lines printed for `test serve` with these arguments.
fn lines(arguments: &[&str]) -> Vec<String> {
    let words = ["test", "serve"].iter().chain(arguments).map(OsString::from).collect();
    match CommandLine::new(TestCommand::command(), words).parse() {
        Err(UsageError::Lines(lines)) => lines,
        other => panic!("{other:?}"),
    }
}

const URL: &str = "--url=postgres://db/x";

#[test]
fn an_invalid_value_is_reported_with_flag_and_expectation() {
    let drain = "--drain (TIDINGS_TEST_DRAIN): '5x': expected a duration like 800ms or 5s";

    assert_eq!(lines(&[URL, "--drain", "5x"]), [drain]);
    assert_eq!(lines(&[URL, "--drain=5x"]), [drain]);
}

#[test]
fn a_secret_is_not_shown() {
    let url = "--url (TIDINGS_TEST_URL): (not shown): expected postgres://HOST/DATABASE";

    assert_eq!(lines(&["--url", "mysql://ada:secret@db"]), [url]);
    assert_eq!(lines(&["mysql://ada:secret@db"]), ["(not shown): no flag before it: see test serve --help"]);
    assert_eq!(lines(&["--ulr=postgres://ada:secret@db"]), ["--ulr: no such flag: see test serve --help"]);
}

#[test]
fn all_invalid_values_are_reported_at_once() {
    let lines = lines(&["--drain", "5x", "--count=0", "--listen", "here", "--drain=6x"]);

    assert_eq!(
        lines,
        [
            "--drain (TIDINGS_TEST_DRAIN): '5x': expected a duration like 800ms or 5s",
            "--count (TIDINGS_TEST_COUNT): '0': expected 1 to 1000",
            "--listen: 'here': expected ADDR:PORT",
            "--url (TIDINGS_TEST_URL): not set: expected postgres://HOST/DATABASE",
        ]
    );
}

#[test]
fn an_unknown_flag_is_reported_with_a_similar_one() {
    assert_eq!(lines(&[URL, "--drains=5s"]), ["--drains: no such flag: expected --drain, or see test serve --help"]);
}

#[test]
fn an_invalid_number_is_reported_with_the_range() {
    assert_eq!(lines(&[URL, "--count", "many"]), ["--count (TIDINGS_TEST_COUNT): 'many': expected 1 to 1000"]);
}

#[test]
fn a_missing_or_superfluous_value_is_reported() {
    assert_eq!(lines(&[URL, "--count"]), ["--count (TIDINGS_TEST_COUNT): no value: expected 1 to 1000"]);
    assert_eq!(lines(&[URL, "--migrate=maybe"]), ["--migrate (TIDINGS_TEST_MIGRATE): 'maybe': expected no value"]);
}

#[test]
fn conflicting_flags_are_reported_together() {
    let both = lines(&[URL, "--migrate", "--listen", "127.0.0.1:1"]);
    assert_eq!(both, ["--migrate (TIDINGS_TEST_MIGRATE): given with --listen: expected one of them"]);

    let twice = lines(&[URL, "--count", "1", "--count", "2"]);
    assert_eq!(twice, ["--count (TIDINGS_TEST_COUNT): given twice: expected one value"]);
}

#[test]
fn errors_that_concern_no_flag_are_left_to_clap() {
    for words in [&["test", "--help"][..], &["test", "look"], &["test", "look", "one", "two"], &["test", "lok"]] {
        let read = CommandLine::new(TestCommand::command(), words.iter().map(OsString::from).collect()).parse();
        assert!(matches!(read, Err(UsageError::Clap(_))), "{words:?}: {read:?}");
    }
}

#[test]
fn a_valid_command_line_is_parsed_unchanged() {
    let words = ["test", "serve", URL, "--count", "7"].map(OsString::from).to_vec();
    let matches = CommandLine::new(TestCommand::command(), words).parse().unwrap();

    let (_, serve) = matches.subcommand().unwrap();
    assert_eq!((serve.get_one::<u32>("count"), serve.get_flag("migrate")), (Some(&7), false));
}
