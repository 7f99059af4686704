//! `grpc.health.v1`, as the upstream contract specifies it.

use std::time::Duration;

use tidings_server::health::HealthState;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_server::health::pb::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use tidings_server::{Args, Health};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::support::{SOON, TestServer, call};

async fn check(client: &mut HealthClient<Channel>, entry: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: entry.to_owned() };
    Ok(client.check(request).await?.into_inner().status())
}

async fn watch(client: &mut HealthClient<Channel>, entry: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: entry.to_owned() };
    client.watch(request).await.unwrap().into_inner()
}

/// Returns the next state that a watch reports; `None` if it ends with OK.
async fn next_state(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let next = timeout(SOON, watch.message()).await.unwrap().unwrap();
    next.map(|response| response.status())
}

#[tokio::test]
async fn a_started_server_reports_all_its_entries_as_serving() {
    let server = TestServer::start().await;
    let mut client = server.health_client().await;

    for entry in [Health::SERVER, Health::READINESS, "test.v1.Probe"] {
        let status = check(&mut client, entry).await.unwrap();
        assert_eq!(status, ServingStatus::Serving, "{entry}");
    }
}

#[tokio::test]
async fn check_returns_the_state_that_was_set() {
    let server = TestServer::start().await;
    let mut client = server.health_client().await;

    server.health.set("test.v1.Probe", HealthState::NotServing);

    let status = check(&mut client, "test.v1.Probe").await.unwrap();
    assert_eq!(status, ServingStatus::NotServing);
    let whole = check(&mut client, Health::SERVER).await.unwrap();
    assert_eq!(whole, ServingStatus::Serving);
}

#[tokio::test]
async fn check_of_an_unknown_service_is_not_found() {
    let server = TestServer::start().await;
    let mut client = server.health_client().await;

    let refused = check(&mut client, "no.such.Service").await.unwrap_err();

    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn list_returns_every_entry_with_its_state() {
    let server = TestServer::start().await;
    let mut client = server.health_client().await;
    server.health.set("readiness", HealthState::NotServing);

    let listed = client.list(HealthListRequest {}).await.unwrap();

    let mut entries: Vec<_> = listed.into_inner().statuses.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<_> = entries.iter().map(|(entry, response)| (entry.as_str(), response.status())).collect();
    assert_eq!(
        entries,
        [
            ("", ServingStatus::Serving),
            ("readiness", ServingStatus::NotServing),
            ("test.v1.Probe", ServingStatus::Serving),
        ]
    );
}

#[tokio::test]
async fn list_of_more_than_100_entries_is_resource_exhausted() {
    let server = TestServer::start().await;
    let mut client = server.health_client().await;
    for n in 0..98 {
        server.health.set(&format!("entry-{n}"), HealthState::Serving);
    }

    let refused = client.list(HealthListRequest {}).await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn watch_reports_the_current_state_and_every_change() {
    let server = TestServer::start().await;
    let mut watch = watch(&mut server.health_client().await, "test.v1.Probe").await;
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::Serving));

    server.health.set("test.v1.Probe", HealthState::NotServing);
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::NotServing));

    // The watch ignores changes of other entries.
    server.health.set("readiness", HealthState::NotServing);
    server.health.set("test.v1.Probe", HealthState::Serving);
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::Serving));
}

#[tokio::test]
async fn watch_of_an_unknown_service_stays_open_until_it_appears() {
    let server = TestServer::start().await;
    let mut watch = watch(&mut server.health_client().await, "late.v1.Service").await;
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::ServiceUnknown));

    server.health.set("late.v1.Service", HealthState::Serving);

    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::Serving));
}

#[tokio::test]
async fn watch_reports_not_serving_and_ends_when_the_server_drains() {
    let server = TestServer::start().await;
    let mut watch = watch(&mut server.health_client().await, "test.v1.Probe").await;
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::Serving));

    let drained = server.stop().await;

    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::NotServing));
    assert_eq!(next_state(&mut watch).await, None);
    assert_eq!(drained.cut, 0);
}

/// States set meanwhile have no effect.
#[tokio::test]
async fn a_lame_duck_reports_not_serving_and_still_serves_calls() {
    let server = TestServer::with(Args { lame_duck: Duration::from_mins(1).into(), ..Args::default() }).await;
    let mut client = server.health_client().await;
    let mut watch = watch(&mut client, Health::READINESS).await;
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::Serving));

    server.shutdown.cancel();
    assert_eq!(next_state(&mut watch).await, Some(ServingStatus::NotServing));
    server.health.set(Health::READINESS, HealthState::NotServing);
    server.health.set(Health::READINESS, HealthState::Serving);

    let status = check(&mut client, Health::READINESS).await.unwrap();
    assert_eq!(status, ServingStatus::NotServing);
    call(&server.channel().await, "/test.v1.Probe/Answer").await.unwrap();
}
