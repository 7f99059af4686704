//! `tidings call`: calls any method of any service, from the compiled-in contracts.

mod codec;
mod describe;

use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor};
use tidings_client::{Addresses, AttemptFailure, InvalidAddress, with_timeout};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

use self::codec::DynamicCodec;
use crate::address::KnownService;
use crate::args::{self, Output};
use crate::contracts::{self, Contracts};
use crate::{credentials, exit, out};

const EXAMPLES: &str = r#"Examples:
  tidings call user.v1.UserService/GetUser '{"id": "ada"}'
  tidings call CreateUser '{"user": {"id": "ada", "displayName": "Ada"}}'
  echo '{"conversation_id": "lobby"}' | tidings call ListMessages -
  tidings call --describe AppendMessage
  tidings call --list

Without --addr the address comes from the variable of the method's service, or its default:
  user       TIDINGS_USER_ADDR       127.0.0.1:7401
  history    TIDINGS_HISTORY_ADDR    127.0.0.1:7402
  lock       TIDINGS_LOCK_ADDR       127.0.0.1:7403
  broadcast  TIDINGS_BROADCAST_ADDR  127.0.0.1:7404"#;

/// Call any method of a service with a JSON request, and print the response
///
/// The contracts are compiled in: no .proto files and no reflection are needed. Any unambiguous end
/// of a method's name will do: `tidings.user.v1.UserService/GetUser`, `user.v1.UserService/GetUser`
/// and `GetUser` are the same.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The method to call
    #[arg(value_name = "SERVICE/METHOD", required_unless_present_any = ["list", "describe"])]
    method: Option<String>,

    /// The request as proto3 JSON, with field names as in the contract or in lowerCamelCase; `-`
    /// reads standard input
    #[arg(value_name = "JSON|-", default_value = "{}")]
    request: String,

    /// List all methods
    #[arg(long, conflicts_with_all = ["method", "describe"])]
    list: bool,

    /// Print the request of a method, or any message, with its fields and their types
    #[arg(long, value_name = "METHOD|MESSAGE", conflicts_with = "method")]
    describe: Option<String>,

    /// Address of the service, HOST:PORT or https://HOST:PORT; one of several separated by commas
    /// is used [default: see below]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<Addresses>,

    /// Request metadata, NAME:VALUE in ASCII; may be given more than once
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<Header>,

    /// Longest wait for the response, e.g. 800ms or 5s; sent to the service as the call's deadline
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format: json (indented) or jsonl (one line for each response)
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = output)]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// Parses the output format. There is no table format: messages are nested.
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
        const EXPECTED: &str = "expected NAME:VALUE in ASCII, with a NAME that does not end with -bin";
        let (name, value) = text.split_once(':').ok_or(EXPECTED)?;
        let name = name.trim().to_ascii_lowercase();
        match (name.parse(), value.trim().parse()) {
            (Ok(name), Ok(value)) => Ok(Self(name, value)),
            _ => Err(EXPECTED),
        }
    }
}

/// Error of `tidings call`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name of the method or message matches nothing, or several.
    #[error(transparent)]
    Name(#[from] contracts::UnresolvedName),
    /// The method is client-streaming.
    #[error("{0} takes a stream of requests; tidings call sends only one request")]
    ClientStream(String),
    /// The contract belongs to no known service.
    #[error("{0} has no default address: give --addr")]
    NoAddress(String),
    /// The environment variable of the service holds a malformed address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// The request does not match the method's request message.
    #[error("malformed request: not a {message}: {reason}")]
    Request {
        /// Full name of the request message.
        message: String,
        /// The JSON error with its line and column.
        reason: serde_json::Error,
    },
    /// Standard input could not be read as text.
    #[error("cannot read the request from standard input: {0}")]
    Input(io::Error),
    /// The call failed.
    #[error(transparent)]
    Refused(AttemptFailure),
    /// The response cannot be converted to JSON.
    #[error("cannot print the response: {0}")]
    Response(serde_json::Error),
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Response(_) => exit::SERVICE,
            _ => exit::USAGE,
        }
    }
}

/// Lists the methods, describes one, or calls one.
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
        None => KnownService::of(&contract).ok_or(Error::NoAddress(contract))?.addresses()?,
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
    let outcome = with_timeout(args.timeout, print_responses(method, endpoint.channel(), request, args.output)).await;
    outcome.map_err(|status| Error::Refused(AttemptFailure::new(&status, endpoint.address())))?
}

/// Parses proto3 JSON. An unknown field is an error, because it would be ignored silently.
fn parse(message: MessageDescriptor, json: &str) -> Result<DynamicMessage, Error> {
    let name = message.full_name().to_owned();
    let mut json = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(message, &mut json, &options)
        .and_then(|request| json.end().map(|()| request))
        .map_err(|reason| Error::Request { message: name, reason })
}

/// Sends the request and prints the response, or each response of a stream as it arrives.
async fn print_responses(
    method: &MethodDescriptor,
    channel: Channel,
    request: Request<DynamicMessage>,
    output: Output,
) -> Result<Result<(), Error>, Status> {
    let path = format!("/{}", contracts::full_name(method));
    let path = path.parse().map_err(|_| Status::internal(format!("malformed method path {path}")))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let responses = client.server_streaming(request, path, DynamicCodec::new(method.output())).await?;
    let mut responses = pin!(responses.into_inner());
    while let Some(response) = responses.next().await {
        match json(&response?, output) {
            Ok(json) => out::result(json),
            Err(error) => return Ok(Err(Error::Response(error))),
        }
    }
    Ok(Ok(()))
}

fn json(response: &DynamicMessage, output: Output) -> Result<String, serde_json::Error> {
    match output {
        Output::Jsonl => serde_json::to_string(response),
        Output::Json | Output::Table => serde_json::to_string_pretty(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_user(json: &str) -> Result<DynamicMessage, Error> {
        parse(Contracts::compiled_in().method("GetUser").unwrap().input(), json)
    }

    #[test]
    fn field_names_are_accepted_in_snake_case_and_camel_case() {
        let [one, other] = [r#"{"min_version": 3}"#, r#"{"minVersion": "3"}"#].map(|json| get_user(json).unwrap());

        assert_eq!(json(&one, Output::Jsonl).unwrap(), json(&other, Output::Jsonl).unwrap());
    }

    #[test]
    fn an_unknown_field_is_refused_with_line_and_column() {
        let error = get_user("{\n  \"id\": \"ada\", \"nick\": 1}").unwrap_err();

        assert_eq!(error.exit_code(), exit::USAGE);
        let text = error.to_string();
        assert!(text.contains("tidings.user.v1.GetUserRequest"), "{text}");
        assert!(text.contains("'nick' at line 2 column"), "{text}");
    }

    #[test]
    fn text_after_the_request_is_refused() {
        assert!(get_user("{} {}").unwrap_err().to_string().contains("trailing characters"));
    }

    #[test]
    fn a_message_is_printed_in_one_line_or_indented() {
        let request = get_user(r#"{"id": "ada"}"#).unwrap();

        assert_eq!(json(&request, Output::Jsonl).unwrap(), r#"{"id":"ada"}"#);
        assert_eq!(json(&request, Output::Json).unwrap(), "{\n  \"id\": \"ada\"\n}");
    }

    #[test]
    fn metadata_is_parsed_as_name_and_value() {
        let Header(name, value) = "X-Request-Id: a:b".parse().unwrap();

        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-request-id", "a:b"));
        assert!("no colon".parse::<Header>().is_err());
        assert!("trace-bin: 1".parse::<Header>().is_err());
    }
}
