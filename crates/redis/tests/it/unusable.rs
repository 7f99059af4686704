//! Servers that are no outage but cannot be used: the reason and its cure are named.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use tidings_devstack::RedisServer;
use tidings_devstack::testing::{eventually, own_redis};
use tidings_redis::{Args, Redis, Role, cmd};

use super::support::{LONG_TIMEOUT, args, connected_lane};

fn open(args: &Args) -> Redis {
    Redis::open(args, "test", Role::Cache).unwrap()
}

fn with_url(server: &RedisServer, url: &str) -> Args {
    Args { redis_url: url.parse().unwrap(), ..args(server, 1, LONG_TIMEOUT) }
}

/// Opens a server that no wait makes usable; returns the reason.
async fn refusal(args: &Args) -> String {
    open(args).check_compatibility().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_cluster_node_is_refused() {
    let server = RedisServer::start_alone_with(&["--cluster-enabled", "yes"]).await.unwrap();

    let refusal = refusal(&args(&server, 1, LONG_TIMEOUT)).await;

    assert!(refusal.starts_with("found a redis in cluster mode: use a standalone redis"), "{refusal}");
}

#[tokio::test]
async fn a_database_number_that_does_not_exist_is_refused() {
    let server = own_redis().await;
    let url = format!("{}/99", server.url());

    let refusal = refusal(&with_url(&server, &url)).await;

    assert!(refusal.starts_with("the database number of --redis-url cannot be selected"), "{refusal}");
}

#[tokio::test]
async fn a_server_that_is_no_redis_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    let args = Args { redis_connect_timeout: LONG_TIMEOUT.into(), ..Args::new(url.parse().unwrap()) };

    let refusal = refusal(&args).await;

    assert!(refusal.starts_with("the server does not speak the protocol of redis"), "{refusal}");
}

/// It may be about to be changed, so the service waits for it.
#[tokio::test]
async fn a_wrong_password_is_named_and_no_reason_to_exit() {
    let server = own_redis().await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let redis = open(&with_url(&server, &format!("redis://app:secret@127.0.0.1:{}", server.port())));

    redis.check_compatibility().await.unwrap();
    let described = redis.describe();
    assert!(described.starts_with("redis refuses the user or the password (WRONGPASS"), "{described}");
    assert!(described.contains("--redis-url"), "{described}");

    let rules = ["on", ">secret", "+@all", "allkeys", "allchannels"];
    cmd("ACL").arg("SETUSER").arg("app").arg(&rules).exec(&mut operator).unwrap();
    connected_lane(&redis).await;
}

#[tokio::test]
async fn a_password_that_is_required_is_named() {
    let server = own_redis().await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    cmd("CONFIG").arg("SET").arg("requirepass").arg("secret").exec(&mut operator).unwrap();

    let redis = open(&args(&server, 1, LONG_TIMEOUT));

    redis.check_compatibility().await.unwrap();
    assert!(redis.describe().starts_with("redis refuses the user or the password"), "{}", redis.describe());
}

#[tokio::test]
async fn a_rotated_password_is_read_from_its_file() {
    let server = own_redis().await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut set_password = |password: &str| {
        let rules = ["reset", "on", password, "+@all", "allkeys", "allchannels"];
        cmd("ACL").arg("SETUSER").arg("app").arg(&rules).exec(&mut operator).unwrap();
    };
    set_password(">one");
    let url = |password: &str| format!("redis://app:{password}@127.0.0.1:{}", server.port());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), url("one")).unwrap();
    let args = Args { redis_url_file: Some(file.path().to_owned()), ..with_url(&server, &url("one")) };
    let redis = open(&args);
    connected_lane(&redis).await;

    set_password(">two");
    let mut killer = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    cmd("CLIENT").arg("KILL").arg("USER").arg("app").exec(&mut killer).unwrap();
    eventually("the old password is refused", async || redis.unusable().is_some()).await;
    std::fs::write(file.path(), format!("\u{feff}{}\r\n", url("two"))).unwrap();

    connected_lane(&redis).await;
    assert_eq!(redis.describe(), "breaker closed");
}

#[tokio::test]
async fn a_private_ca_is_trusted_if_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let server = own_redis().await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let port = free_port();
    let mut set = cmd("CONFIG");
    set.arg("SET").arg("tls-cert-file").arg(path("cert.pem")).arg("tls-key-file").arg(path("key.pem"));
    set.arg("tls-ca-cert-file").arg(path("cert.pem")).arg("tls-auth-clients").arg("no").arg("tls-port").arg(port);
    set.exec(&mut operator).unwrap();
    let unknown = with_url(&server, &format!("rediss://localhost:{port}"));

    let refused = open(&unknown);
    refused.check_compatibility().await.unwrap();
    let described = refused.describe();
    assert!(described.contains("UnknownIssuer") && described.contains("--redis-ca"), "{described}");

    let trusted = Args { redis_ca: Some(path("cert.pem").into()), ..unknown.clone() };
    connected_lane(&open(&trusted)).await;

    let missing = Args { redis_ca: Some(path("none.pem").into()), ..unknown };
    let error = Redis::open(&missing, "test", Role::Cache).unwrap_err().to_string();
    assert!(error.contains("--redis-ca") && error.contains("none.pem"), "{error}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Redis shares channels between its databases.
#[tokio::test]
async fn two_databases_of_one_server_share_no_channels() {
    let server = own_redis().await;
    let zero = args(&server, 1, LONG_TIMEOUT);
    let one = Args { redis_url: format!("{}/1", server.url()).parse().unwrap(), ..zero.clone() };

    let [zero, one] = [open(&zero), open(&one)];
    let channel = async |redis: &Redis| connected_lane(redis).await.channel(format_args!("news"));

    let (zero, one) = (channel(&zero).await, channel(&one).await);
    assert_ne!(zero, one);
    assert!(zero.ends_with(":test:news") && one.ends_with(":test:db1:news"), "{zero} {one}");
}
