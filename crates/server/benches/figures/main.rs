//! Measures the cost of an empty call beside tonic's own server, of a refused call, and of idle
//! connections and streams.
//!
//! `cargo bench --package tidings-server`. The servers run in their own processes, so that their
//! CPU time and memory are separate from those of the callers on the same machine. Rounds
//! alternate; the medians are printed.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and panics on errors")]

mod callers;
mod process;
mod service;

use std::time::Duration;

use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_client::HealthClient;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;

use self::callers::LoadRound;
use self::process::ServerProcess;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
const CALLERS: usize = 64;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::args().nth(1).as_deref() {
        Some("serve") => runtime.block_on(service::serve(&std::env::args().nth(2).unwrap())),
        _ => runtime.block_on(measure()),
    }
}

async fn measure() {
    empty_calls().await;
    refused_calls().await;
    idle().await;
}

async fn empty_calls() {
    let (ours, stock) = (ServerProcess::start("ours"), ServerProcess::start("stock"));
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for number in 0..=ROUNDS {
        let (our, its) = if number % 2 == 0 {
            let our = LoadRound::run(&ours, CALLERS, ROUND).await;
            (our, LoadRound::run(&stock, CALLERS, ROUND).await)
        } else {
            let its = LoadRound::run(&stock, CALLERS, ROUND).await;
            (LoadRound::run(&ours, CALLERS, ROUND).await, its)
        };
        if number > 0 {
            // The first round warms up.
            println!(
                "  calls/s {:.0} of {:.0}, server CPU a call {:?} of {:?}",
                our.rate, its.rate, our.cost, its.cost
            );
            rates.push(our.rate / its.rate);
            costs.push(our.cost.as_secs_f64() / its.cost.as_secs_f64());
        }
    }
    println!("empty call, {CALLERS} callers: {:.3} of the calls/s of tonic's own server", median(rates));
    println!("                        {:.3} of its CPU time a call", median(costs));
}

/// Two calls of 100 ms may run; all others are refused. A call shorter than 1 ms is a refused
/// one.
async fn refused_calls() {
    let server = ServerProcess::start("small");
    let round = LoadRound::run(&server, CALLERS, Duration::from_secs(5)).await;
    let metrics = server.metrics().await;
    let method = r#"grpc_type="unary",grpc_service="tidings.lock.v1.LockService",grpc_method="GetLock""#;
    let within = value(&metrics, &format!(r#"grpc_server_handling_seconds_bucket{{{method},le="0.001"}}"#));
    let shed = value(&metrics, &format!(r#"grpc_server_handled_total{{{method},grpc_code="ResourceExhausted"}}"#));
    println!(
        "refused: {shed:.0} calls of {:.0}, {:.3} % of them in less than 1 ms",
        round.calls,
        100.0 * within / shed
    );
}

async fn idle() {
    const CONNECTIONS: u32 = 4_000;
    const STREAMS: u32 = 10_000;
    let server = ServerProcess::start("ours");
    LoadRound::run(&server, CALLERS, ROUND).await;
    let before = server.memory();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        connections.push(connection);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{CONNECTIONS} idle connections: {:.1} KiB each", each(before, server.memory(), CONNECTIONS));
    drop(connections);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let before = server.memory();
    let mut streams = Vec::new();
    let mut channel: Option<Channel> = None;
    for number in 0..STREAMS {
        if number % 200 == 0 {
            channel = Some(server.channel().await);
        }
        let mut health = HealthClient::new(channel.clone().unwrap());
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watch.message().await.unwrap();
        streams.push(watch);
    }
    println!("{STREAMS} idle streams: {:.1} KiB each, of 200 on a connection", each(before, server.memory(), STREAMS));
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn each(before: u64, after: u64, count: u32) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / f64::from(count)
}

fn value(metrics: &str, line: &str) -> f64 {
    metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok()).unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
