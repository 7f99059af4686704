//! `tidings call`: any method of any service, by the contracts compiled in.

mod codec;
mod describe;

use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tidings_client::{Addresses, Malformed, Refusal, within};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use self::codec::Dynamic;
use crate::address::Service;
use crate::cli::{self, Output};
use crate::contracts::{self, Contracts};
use crate::{credentials, error, out};

const EXAMPLES: &str = r#"Examples:
  tidings call user.v1.UserService/GetUser '{"id": "ada"}'
  tidings call CreateUser '{"user": {"id": "ada", "displayName": "Ada"}}'
  echo '{"conversation_id": "lobby"}' | tidings call ListMessages -
  tidings call --describe AppendMessage
  tidings call --list

Without --addr the address is that of the method's service:
  user       TIDINGS_USER_ADDR       127.0.0.1:7401
  history    TIDINGS_HISTORY_ADDR    127.0.0.1:7402
  lock       TIDINGS_LOCK_ADDR       127.0.0.1:7403
  broadcast  TIDINGS_BROADCAST_ADDR  127.0.0.1:7404"#;

/// Call one method of a service with a request in JSON, and print the answer.
///
/// The contracts are compiled in, so that nothing else is needed. A method is named as far as it is unambiguous:
/// `tidings.user.v1.UserService/GetUser`, `user.v1.UserService/GetUser` and `GetUser` are the same.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The method to call
    #[arg(value_name = "SERVICE/METHOD", required_unless_present_any = ["list", "describe"])]
    method: Option<String>,

    /// The request as proto3 JSON, with field names as in the contract or in lowerCamelCase; - reads standard input
    #[arg(value_name = "JSON|-", default_value = "{}")]
    request: String,

    /// List all methods
    #[arg(long, conflicts_with_all = ["method", "describe"])]
    list: bool,

    /// Print the request of a method, or a message, with its fields and their types
    #[arg(long, value_name = "METHOD|MESSAGE", conflicts_with = "method")]
    describe: Option<String>,

    /// Where the service is, HOST:PORT or https://HOST:PORT; one of several separated by commas [default: see below]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<Addresses>,

    /// Metadata to send, NAME:VALUE in ASCII; may be given more than once
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<Header>,

    /// Longest time to wait for the answer, e.g. 800ms or 5s; the service is told
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = cli::duration)]
    timeout: Duration,

    /// How to print the answer: json over several lines, or jsonl in one
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = output)]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// The formats that an answer has: there is no table of a nested message.
fn output(text: &str) -> Result<Output, &'static str> {
    match text {
        "json" => Ok(Output::Json),
        "jsonl" => Ok(Output::Jsonl),
        _ => Err("expected json or jsonl"),
    }
}

/// One `NAME:VALUE` of metadata.
#[derive(Clone, Debug)]
struct Header(AsciiMetadataKey, AsciiMetadataValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected NAME:VALUE in ASCII, and a NAME that does not end with -bin";
        let (name, value) = text.split_once(':').ok_or(EXPECTED)?;
        let name = name.trim().to_ascii_lowercase();
        match (name.parse(), value.trim().parse()) {
            (Ok(name), Ok(value)) => Ok(Self(name, value)),
            _ => Err(EXPECTED),
        }
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No method or message has this name.
    #[error(transparent)]
    Name(#[from] contracts::Unknown),
    /// The method takes more than one request.
    #[error("{0} takes a stream of requests: this command sends one")]
    ClientStream(String),
    /// Nobody knows where the service of this contract is.
    #[error("{0} has no default address: give --addr")]
    NoAddress(String),
    /// An environment variable holds no address.
    #[error(transparent)]
    Address(#[from] Malformed),
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// The request is not what the method takes.
    #[error("the request is no {message}: {reason}")]
    Request {
        /// The message that the method takes.
        message: String,
        /// What is wrong and where.
        reason: serde_json::Error,
    },
    /// Standard input could not be read as text.
    #[error("cannot read the request from standard input: {0}")]
    Input(io::Error),
    /// The call failed.
    #[error(transparent)]
    Refused(Refusal),
    /// The answer cannot be shown.
    #[error("cannot print the answer: {0}")]
    Answer(serde_json::Error),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Answer(_) => error::SERVICE,
            _ => error::USAGE,
        }
    }
}

/// Lists, describes or calls.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let contracts = Contracts::compiled_in();
    if let Some(name) = &args.describe {
        out::result(describe::describe(&contracts, name)?.trim_end());
    } else if let Some(name) = &args.method {
        call(&contracts.method(name)?, &args).await?;
    } else {
        for method in contracts.methods() {
            out::result(contracts::full_name(&method));
        }
    }
    Ok(())
}

async fn call(method: &MethodDescriptor, args: &Args) -> Result<(), Error> {
    if method.is_client_streaming() {
        return Err(Error::ClientStream(contracts::full_name(method)));
    }
    let contract = method.parent_service().full_name().to_owned();
    let addresses = match &args.addr {
        Some(addresses) => addresses.clone(),
        None => Service::of(&contract).ok_or(Error::NoAddress(contract))?.addresses()?,
    };
    let json = match args.request.as_str() {
        "-" => io::read_to_string(io::stdin()).map_err(Error::Input)?,
        json => json.to_owned(),
    };
    let mut request = Request::new(parse(method.input(), &json)?);
    for Header(name, value) in &args.header {
        request.metadata_mut().append(name.clone(), value.clone());
    }
    request.set_timeout(args.timeout);
    let endpoint = args.credentials.endpoints(&addresses)?.pick();
    endpoint.authorize(&mut request);
    let answered = within(args.timeout, print_answers(method, endpoint.channel(), request, args.output)).await;
    answered.map_err(|status| Error::Refused(Refusal::new(&status, endpoint.address())))?
}

/// Reads proto3 JSON; a field that the message does not have is an error, as it would silently say nothing.
fn parse(message: MessageDescriptor, json: &str) -> Result<DynamicMessage, Error> {
    let name = message.full_name().to_owned();
    let mut json = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(message, &mut json, &options)
        .and_then(|request| json.end().map(|()| request))
        .map_err(|reason| Error::Request { message: name, reason })
}

/// Sends the request and prints what is answered: one message, or each of a stream as it comes.
async fn print_answers(
    method: &MethodDescriptor,
    channel: Channel,
    request: Request<DynamicMessage>,
    output: Output,
) -> Result<Result<(), Error>, Status> {
    let path = format!("/{}", contracts::full_name(method));
    let path = path.parse().map_err(|_| Status::internal(format!("{path} is no path")))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let answers = client.server_streaming(request, path, Dynamic::new(method.output())).await?;
    let mut answers = pin!(answers.into_inner());
    while let Some(answer) = answers.next().await {
        match json(&answer?, output) {
            Ok(json) => out::result(json),
            Err(error) => return Ok(Err(Error::Answer(error))),
        }
    }
    Ok(Ok(()))
}

fn json(answer: &DynamicMessage, output: Output) -> Result<String, serde_json::Error> {
    match output {
        Output::Jsonl => serde_json::to_string(answer),
        Output::Json | Output::Table => serde_json::to_string_pretty(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_user(json: &str) -> Result<DynamicMessage, Error> {
        parse(Contracts::compiled_in().method("GetUser").unwrap().input(), json)
    }

    #[test]
    fn field_names_are_read_as_in_the_contract_and_in_camel_case() {
        let [one, other] = [r#"{"min_version": 3}"#, r#"{"minVersion": "3"}"#].map(|json| get_user(json).unwrap());

        assert_eq!(json(&one, Output::Jsonl).unwrap(), json(&other, Output::Jsonl).unwrap());
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place() {
        let error = get_user("{\n  \"id\": \"ada\", \"nick\": 1}").unwrap_err();

        assert_eq!(error.exit_code(), error::USAGE);
        let text = error.to_string();
        assert!(text.contains("tidings.user.v1.GetUserRequest"), "{text}");
        assert!(text.contains("'nick' at line 2 column"), "{text}");
    }

    #[test]
    fn nothing_may_follow_the_request() {
        assert!(get_user("{} {}").unwrap_err().to_string().contains("trailing characters"));
    }

    #[test]
    fn an_answer_is_printed_as_it_was_read() {
        let request = get_user(r#"{"id": "ada"}"#).unwrap();

        assert_eq!(json(&request, Output::Jsonl).unwrap(), r#"{"id":"ada"}"#);
        assert_eq!(json(&request, Output::Json).unwrap(), "{\n  \"id\": \"ada\"\n}");
    }

    #[test]
    fn metadata_is_a_name_and_a_value() {
        let Header(name, value) = "X-Request-Id: a:b".parse().unwrap();

        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-request-id", "a:b"));
        assert!("no colon".parse::<Header>().is_err());
        assert!("trace-bin: 1".parse::<Header>().is_err());
    }
}
