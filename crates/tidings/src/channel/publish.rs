//! `tidings channel pub`: publishes one message.

use std::io::{self, Read as _};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use tidings_client::{Addresses, Caller};
use tidings_proto::broadcast::PublishRequest;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use uuid::Uuid;

use super::error::Error;
use crate::address::{BROADCAST_ADDRESS, BROADCAST_VARIABLE};
use crate::args::{self, Output};
use crate::contracts::Contracts;
use crate::{credentials, out};

/// Maximum size of a message's data in bytes, set by the contract. One byte more is read from
/// standard input, so that the service refuses oversized data.
const DATA_MAX: u64 = 64 * 1024;

const EXAMPLES: &str = "\
Examples:
  tidings channel pub orders/eu 'order 42 is paid'
  tidings channel pub orders/eu - --content-type application/json < order.json
  tidings channel pub orders/eu hello --attribute from=ada --attribute to=bo";

/// Publish a message, and print its position
///
/// Every subscriber receives the message, or a Gap or Reset in its place.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Channel name, 1 to 200 of [A-Za-z0-9._~/-], e.g. orders/eu
    #[arg(value_name = "CHANNEL")]
    channel: String,

    /// Data of the message, at most 64 KiB; `-` reads standard input
    #[arg(value_name = "DATA|-", default_value = "", hide_default_value = true)]
    data: String,

    /// Media type of the data, e.g. application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Attribute of the message; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    attribute: Vec<Attribute>,

    /// Idempotency key, under which a repeated command within 10 minutes publishes nothing: 1 to 64
    /// of [A-Za-z0-9._~-]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Address of the broadcast service, HOST:PORT or https://HOST:PORT; several separated by
    /// commas
    #[arg(long, value_name = "ADDRESS", env = BROADCAST_VARIABLE, default_value = BROADCAST_ADDRESS)]
    addr: Addresses,

    /// Longest wait for one response, e.g. 800ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = args::duration)]
    timeout: Duration,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    #[command(flatten)]
    credentials: credentials::Args,
}

/// One attribute, parsed from `NAME=VALUE`.
#[derive(Clone, Debug)]
struct Attribute(String, String);

impl FromStr for Attribute {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self(name.to_owned(), value.to_owned())),
            _ => Err("expected NAME=VALUE"),
        }
    }
}

/// Publishes one message.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let data = match args.data.as_str() {
        "-" => read()?,
        data => Bytes::copy_from_slice(data.as_bytes()),
    };
    let request = PublishRequest {
        channel: args.channel,
        data,
        content_type: args.content_type.unwrap_or_default(),
        attributes: args.attribute.into_iter().map(|Attribute(name, value)| (name, value)).collect(),
        // A publish is safe to retry only with an idempotency key.
        request_id: args.request_id.unwrap_or_else(|| Uuid::now_v7().to_string()),
        ..PublishRequest::default()
    };
    let caller = Caller::new(args.credentials.endpoints(&args.addr)?, args::policy(args.timeout));
    let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
    let response = caller.call("Publish", &request, send).await?;
    out::result(match args.output {
        Output::Table => format!("epoch   {}\noffset  {}", response.epoch, response.offset),
        output => output.json(&Contracts::compiled_in().json("tidings.broadcast.v1.PublishResponse", &response)),
    });
    Ok(())
}

fn read() -> Result<Bytes, Error> {
    let mut data = Vec::new();
    io::stdin().take(DATA_MAX + 1).read_to_end(&mut data).map_err(Error::Input)?;
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_value_may_contain_an_equals_sign() {
        let Attribute(name, value) = "query=a=b".parse().unwrap();

        assert_eq!((name.as_str(), value.as_str()), ("query", "a=b"));
        assert!("query".parse::<Attribute>().is_err());
        assert!("=b".parse::<Attribute>().is_err());
    }
}
