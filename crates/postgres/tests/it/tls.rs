//! TLS to Postgres: encryption and verification as the URL asks for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing::{self, eventually, own_stack};
use tidings_devstack::{Devstack, PostgresServer};
use tidings_postgres::{Args, Fault, Postgres, StartError};

use super::support::{SOON, ask};

/// Writes a file with the owner of the server, which reads keys of its own user only.
async fn write_as_server(admin: &str, path: &str, text: &str) {
    let lines = text.lines().map(|line| format!("('{line}')")).collect::<Vec<_>>().join(", ");
    testing::execute(admin, &format!("COPY (VALUES {lines}) TO '{path}'")).await;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Gives the server a certificate for `localhost`; returns the certificate.
async fn enable_tls(stack: &Devstack) -> String {
    let admin = stack.postgres().maintenance_url();
    let mut connection = PgConnection::connect(&admin).await.unwrap();
    let query = "SELECT current_setting('data_directory')";
    let data: String = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write_as_server(&admin, &format!("{data}/server.crt"), &certified.cert.pem()).await;
    write_as_server(&admin, &format!("{data}/server.key"), &certified.signing_key.serialize_pem()).await;
    testing::execute(&admin, "ALTER SYSTEM SET ssl = on").await;
    testing::execute(&admin, "SELECT pg_reload_conf()").await;
    certified.cert.pem()
}

/// Connects with TLS parameters.
async fn connect(server: &PostgresServer, host: &str, tls: &str) -> Result<Postgres, StartError> {
    let url = format!("postgres://tidings@{host}:{}/postgres?{tls}", server.port());
    let args = Args { postgres_acquire_timeout: SOON.into(), ..Args::new(url.parse().unwrap()) };
    Postgres::connect(&args, "tidings-test").await
}

/// Returns the cause for which a connection is refused, for an operator to act.
async fn refused(server: &PostgresServer, host: &str, tls: &str) -> String {
    let error = connect(server, host, tls).await.unwrap_err();
    assert!(!error.is_away(), "{error:?}");
    let StartError::Connect(_, Fault::Refused(cause)) = error else { panic!("{error:?}") };
    cause.to_string()
}

#[tokio::test]
async fn a_certificate_is_verified_as_the_url_asks() {
    let stack = own_stack().await;
    let server = stack.postgres();
    let dir = std::env::temp_dir().join(format!("tidings-tls-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (ca, other) = (dir.join("ca.pem"), dir.join("other.pem"));
    fs::write(&ca, enable_tls(&stack).await).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&other, stranger.cert.pem()).unwrap();
    let with = |mode: &str, ca: &Path| format!("sslmode={mode}&sslrootcert={}", ca.display());
    let encrypted = async || connect(server, "localhost", "sslmode=require").await.is_ok();
    eventually("the server has TLS", encrypted).await;

    let verified = connect(server, "localhost", &with("verify-full", &ca)).await.unwrap();
    let uses_tls = "SELECT ssl::int FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(&verified, uses_tls).await.unwrap(), 1);

    let stranger = refused(server, "localhost", &with("verify-full", &other)).await;
    assert!(stranger.contains("certificate"), "{stranger}");
    let name = refused(server, "127.0.0.1", &with("verify-full", &ca)).await;
    assert!(name.contains("certificate") && name.contains("127.0.0.1"), "{name}");
    let missing = refused(server, "localhost", &with("verify-full", &dir.join("none.pem"))).await;
    assert!(missing.contains("none.pem") && missing.contains("No such file"), "{missing}");
    fs::remove_dir_all(dir).unwrap();
}
