//! Rolling restarts under load: no call fails, and no stream misses a message.
//!
//! The default is three restarts and 100 streams. `make drills` sets higher numbers with
//! `TIDINGS_RESTARTS`, `TIDINGS_REST` and `TIDINGS_STREAMS`.

mod callers;
mod subscribers;

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use self::callers::{GrpcioCallers, RustCallers};
use self::subscribers::Subscribers;
use crate::service::TestService;
use crate::support::print_figures;

/// Milliseconds between two restarts, long enough for all clients to reconnect.
const RESTART_INTERVAL: usize = 1_500;
/// Flags of all instances: lame duck and drain as under an orchestrator.
const FLAGS: [&str; 4] = ["--lame-duck", "500ms", "--drain", "5s"];

/// Returns a number from the environment, or its default.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Restarts both instances in turn; returns the duration of the slowest restart.
async fn restart_in_turn(instances: &mut [TestService; 2], restarts: usize) -> Duration {
    let interval = Duration::from_millis(setting("TIDINGS_REST", RESTART_INTERVAL).try_into().unwrap());
    let mut longest = Duration::ZERO;
    sleep(interval).await;
    for n in 0..restarts {
        let start = Instant::now();
        instances[n % 2].restart(Signal::TERM).await;
        longest = longest.max(start.elapsed());
        sleep(interval).await;
    }
    longest
}

async fn two_instances(name: &'static str) -> [TestService; 2] {
    let one = TestService::start(name, &FLAGS).await;
    let two = one.start_another().await;
    [one, two]
}

fn addresses(instances: &[TestService; 2]) -> String {
    format!("{},{}", instances[0].address, instances[1].address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_instances_are_restarted_in_turn() {
    let restarts = setting("TIDINGS_RESTARTS", 3);
    let mut instances = two_instances("user").await;
    callers::create_user(&instances[0]).await;
    let addresses = addresses(&instances);
    let rust = RustCallers::start(&addresses);
    let grpcio = GrpcioCallers::start(&addresses, "no_call_fails_while_instances_are_restarted_in_turn");

    let longest = restart_in_turn(&mut instances, restarts).await;

    let (calls, retries) = rust.end().await;
    let others = grpcio.map(GrpcioCallers::end).map_or_else(String::new, |calls| format!(" and {calls} of grpcio"));
    print_figures(&format!(
        "\n{restarts} restarts, {longest:.1?} at most: {calls} calls of tidings-client ({retries} retries){others}, 0 failed\n"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_move_between_instances_without_a_lost_message() {
    let (restarts, streams) = (setting("TIDINGS_RESTARTS", 3), setting("TIDINGS_STREAMS", 100));
    let mut instances = two_instances("broadcast").await;
    let subscribers = Subscribers::start(&addresses(&instances), streams).await;

    let longest = restart_in_turn(&mut instances, restarts).await;

    let published = subscribers.end().await;
    print_figures(&format!(
        "\n{restarts} restarts, {longest:.1?} at most: {streams} streams got each of {published} messages once and in order\n"
    ));
}
