//! Instances restarted one after the other under load: no call fails, and no stream misses a message.
//!
//! Three restarts and 100 streams; `TIDINGS_RESTARTS`, `TIDINGS_REST` and `TIDINGS_STREAMS` ask for more, as `make drills`
//! does.

mod callers;
mod listeners;

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use self::callers::{GrpcioCallers, RustCallers};
use self::listeners::Listeners;
use crate::service::Service;
use crate::support::say;

/// How many milliseconds an instance is left alone after it was restarted: so long that everybody has found it again.
const REST: usize = 1_500;
/// As an orchestrator has it: an instance says that it is about to go before it goes.
const FLAGS: [&str; 4] = ["--lame-duck", "500ms", "--drain", "5s"];

/// A number that a longer run sets.
fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Restarts both instances in turn, and says what it took.
async fn restart_in_turn(instances: &mut [Service; 2], restarts: usize) -> Duration {
    let rest = Duration::from_millis(setting("TIDINGS_REST", REST).try_into().unwrap());
    let mut longest = Duration::ZERO;
    sleep(rest).await;
    for n in 0..restarts {
        let start = Instant::now();
        instances[n % 2].restart(Signal::TERM).await;
        longest = longest.max(start.elapsed());
        sleep(rest).await;
    }
    longest
}

async fn two_instances(name: &'static str) -> [Service; 2] {
    let one = Service::start(name, &FLAGS).await;
    let two = one.another().await;
    [one, two]
}

fn addresses(instances: &[Service; 2]) -> String {
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

    let (calls, repeats) = rust.end().await;
    let others = grpcio.map(GrpcioCallers::end).map_or_else(String::new, |calls| format!(" and {calls} of grpcio"));
    say(&format!(
        "\n{restarts} restarts, {longest:.1?} at most: {calls} calls of tidings-client ({repeats} repeats){others}, 0 failed\n"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_move_from_instance_to_instance_without_a_lost_message() {
    let (restarts, streams) = (setting("TIDINGS_RESTARTS", 3), setting("TIDINGS_STREAMS", 100));
    let mut instances = two_instances("broadcast").await;
    let listeners = Listeners::start(&addresses(&instances), streams).await;

    let longest = restart_in_turn(&mut instances, restarts).await;

    let published = listeners.end().await;
    say(&format!(
        "\n{restarts} restarts, {longest:.1?} at most: {streams} streams got each of {published} messages once and in order\n"
    ));
}
