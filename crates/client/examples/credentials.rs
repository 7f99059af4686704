//! Calls a service with TLS and a bearer token from files, which may change at any time.
//!
//! The files are reloaded at most a second after a change: certificates for new connections, the
//! token for calls. With an unusable file, the last valid contents stay in use. Certificates and
//! tokens are thus rotated without a restart and without a failed call.
//!
//! `make up` serves without credentials. Beside it, a second instance with credentials, on the
//! Postgres and the Redis that `make up` prints:
//!
//! ```console
//! $ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost \
//!     -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.pem
//! $ tidings token new --name example --scope user:read --out example.token --append tokens
//! $ tidings serve user --listen 127.0.0.1:8401 --tls-cert server.pem --tls-key server.key \
//!     --token-file tokens --postgres-url postgres://... --redis-url redis://...
//! ```
//!
//! Then, while you change `example.token` and back:
//!
//! ```console
//! $ export TIDINGS_USER_ADDR=https://localhost:8401 TIDINGS_CALLER_CA=server.pem
//! $ export TIDINGS_CALLER_TOKEN_FILE=example.token
//! $ cargo run --quiet -p tidings-client --example credentials
//! accepted
//! refused: UNAUTHENTICATED: ...
//! accepted
//! ```
//!
//! A service that requires client certificates accepts `TIDINGS_CALLER_CERT` and
//! `TIDINGS_CALLER_KEY`.

#![expect(clippy::print_stdout, reason = "the result of the example")]

use std::env;
use std::time::Duration;

use anyhow::Context as _;
use tidings_client::{Addresses, Caller, CredentialFiles, Credentials, Endpoints, Policy};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{ErrorReason, GetUserRequest};
use tokio::time::interval;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let addresses = env::var("TIDINGS_USER_ADDR").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    let addresses: Addresses = addresses.parse()?;
    let path = |variable| env::var_os(variable).map(Into::into);
    let files = CredentialFiles {
        ca: path("TIDINGS_CALLER_CA"),
        cert: path("TIDINGS_CALLER_CERT"),
        key: path("TIDINGS_CALLER_KEY"),
        token: path("TIDINGS_CALLER_TOKEN_FILE"),
    };
    // Fails if a file is unusable, or if a CA is given for an address without https://.
    let credentials = Credentials::open(&files, &addresses).context("the credentials cannot be used")?;
    let users = Caller::new(Endpoints::secured(&addresses, &credentials), Policy::default());

    let request = GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        match users.call("GetUser", &request, send).await {
            Ok(_) => println!("accepted"),
            Err(error) if error.has_reason(ErrorReason::UserNotFound.text()) => println!("accepted"),
            // UNAUTHENTICATED: no such token. PERMISSION_DENIED: the token lacks the scope.
            Err(error) => match error.refused() {
                Some(refusal) => println!("refused: {}: {}", refusal.reason, refusal.message),
                None => return Err(error).context("no instance responds"),
            },
        }
    }
}
