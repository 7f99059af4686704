//! The way to Postgres: addresses, limits, and the cause of a failure in every message.

use std::error::Error;
use std::iter;
use std::time::Duration;

use tidings_devstack::Proxy;
use tidings_devstack::testing::{self, eventually, own_stack};
use tidings_postgres::{Args, Postgres, StartError};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::support::{MIGRATIONS, SOON, ask};

/// Formats an error with its sources, as the log does.
fn chain(error: &dyn Error) -> String {
    iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn fail_to_connect(url: &str) -> (StartError, String) {
    let args = Args { postgres_connect_timeout: SOON.into(), ..Args::new(url.parse().unwrap()) };
    let error = Postgres::connect(&args, "tidings-test").await.unwrap_err();
    let text = chain(&error);
    (error, text)
}

#[tokio::test]
async fn the_cause_of_a_failed_start_is_in_its_message() {
    let postgres = testing::shared().await.postgres();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let here = format!("127.0.0.1:{}", postgres.port());
    for (url, cause, may_wait) in [
        (postgres.url("nowhere"), "database \"nowhere\" does not exist (3D000)", false),
        (format!("postgres://ghost:secret@{here}/postgres"), "role \"ghost\" does not exist (28000)", false),
        (format!("postgres://tidings@{here}/postgres?sslmode=require"), "server does not support TLS", false),
        (format!("postgres://tidings:secret@{closed}/postgres"), "refused", true),
        ("postgres://tidings:secret@nowhere.invalid/x".to_owned(), "cannot resolve host name 'nowhere.invalid'", true),
    ] {
        let (error, text) = fail_to_connect(&url).await;

        assert!(text.starts_with("cannot connect to postgres at postgres://") && text.contains(cause), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(error.is_away(), may_wait, "{text}");
    }
}

#[tokio::test]
async fn a_silent_server_is_named_with_the_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("postgres://tidings@{address}/postgres");
    let limit = Duration::from_millis(50);
    let args = Args { postgres_connect_timeout: limit.into(), ..Args::new(url.parse().unwrap()) };

    let error = Postgres::connect(&args, "tidings-test").await.unwrap_err();

    let text = chain(&error);
    assert!(text.contains(&format!("connecting to {address}: no response within 50ms")), "{text}");
    assert!(error.is_away());
}

/// Forwards connections of an IPv6 address.
async fn forward(listener: TcpListener, port: u16) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test]
async fn an_ipv6_address_in_the_url_is_used() {
    let stack = testing::shared().await;
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return; // the machine has no IPv6
    };
    let url = testing::database(stack, &MIGRATIONS, "postgres").await;
    let port = stack.postgres().port();
    let url = url.replace(&format!("127.0.0.1:{port}"), &listener.local_addr().unwrap().to_string());
    tokio::spawn(forward(listener, port));
    let args = Args { postgres_acquire_timeout: SOON.into(), ..Args::new(url.parse().unwrap()) };

    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();

    assert!(url.contains("@[::1]:"), "{url}");
    assert_eq!(ask(&postgres, "SELECT 7").await.unwrap(), 7);
}

/// Far servers need several round trips for TLS and log-in.
#[tokio::test]
async fn a_slow_log_in_may_take_longer_than_calls_wait() {
    let stack = testing::shared().await;
    let url = testing::database(stack, &MIGRATIONS, "postgres").await;
    let port = stack.postgres().port();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    let args = Args {
        postgres_connections: 2,
        postgres_acquire_timeout: Duration::from_millis(100).into(),
        postgres_connect_timeout: (6 * SOON).into(),
        postgres_statement_timeout: SOON.into(),
        ..Args::new(url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port())).parse().unwrap())
    };
    proxy.delay(Duration::from_millis(200));
    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();
    let (taken, enough) = (Notify::new(), Notify::new());
    let holder = postgres.run(async |_| {
        taken.notify_one();
        enough.notified().await;
        Ok(())
    });
    let others = async {
        taken.notified().await;
        let first = ask(&postgres, "SELECT 1").await;
        assert!(first.is_err(), "the second connection takes longer than 100 ms");
        eventually("the second connection is used", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
        enough.notify_one();
    };

    let (held, ()) = tokio::join!(holder, others);
    held.unwrap();
}

#[tokio::test]
async fn calls_and_probes_of_an_outage_have_its_cause() {
    let stack = own_stack().await;
    let url = testing::database(&stack, &MIGRATIONS, "postgres").await;
    let postgres = Postgres::connect(&Args::new(url.parse().unwrap()), "tidings-test").await.unwrap();
    assert_eq!(postgres.problem(), None);

    stack.postgres().kill().await;

    eventually("the call has the cause", async || {
        ask(&postgres, "SELECT 1").await.is_err_and(|fault| chain(&fault).contains("refused"))
    })
    .await;
    eventually("the probe has the cause", async || {
        !postgres.ping(SOON).await && postgres.problem().is_some_and(|problem| problem.contains("refused"))
    })
    .await;
    stack.postgres().start().await.unwrap();
    eventually("there is no problem", async || postgres.ping(SOON).await && postgres.problem().is_none()).await;
}
