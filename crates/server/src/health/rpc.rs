//! The `grpc.health.v1` service over the table of entries.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use self::pb::health_check_response::ServingStatus;
use self::pb::health_server::HealthServer;
use super::{Health, Phase, State, Table};

/// Generated from the upstream contract, client included.
#[expect(missing_docs, unused_qualifications, clippy::pedantic, clippy::allow_attributes, reason = "generated")]
#[cfg_attr(doc, expect(rustdoc::bare_urls, reason = "generated"))]
pub mod pb {
    tonic::include_proto!("grpc.health.v1");
}

/// The contract as an encoded `FileDescriptorSet`, for reflection.
pub(crate) const DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("health");

/// Most entries List answers with; the contract allows RESOURCE_EXHAUSTED beyond, grpc-go draws the line here as well.
const MAX_LISTED: usize = 100;

impl Health {
    pub(crate) fn service(&self) -> HealthServer<Health> {
        HealthServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl pb::health_server::Health for Health {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        match self.0.borrow().state(&request.get_ref().service) {
            Some(state) => Ok(Response::new(answer(Some(state)))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let table = self.0.borrow();
        if table.entries.len() > MAX_LISTED {
            return Err(Status::resource_exhausted(format!("more than {MAX_LISTED} health entries")));
        }
        let statuses = table.entries.keys().map(|entry| (entry.clone(), answer(table.state(entry)))).collect();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<pb::HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher { table: self.0.subscribe(), entry: request.into_inner().service, told: None };
        Ok(Response::new(stream::unfold(watcher, Watcher::next).map(Ok).boxed()))
    }
}

/// One Watch call.
struct Watcher {
    table: watch::Receiver<Table>,
    entry: String,
    told: Option<pb::HealthCheckResponse>,
}

impl Watcher {
    /// Waits for something the caller was not told yet; `None` ends the call.
    async fn next(mut self) -> Option<(pb::HealthCheckResponse, Self)> {
        loop {
            let (now, phase) = {
                let table = self.table.borrow_and_update();
                (answer(table.state(&self.entry)), table.phase)
            };
            if self.told.replace(now) != Some(now) {
                return Some((now, self));
            }
            if phase == Phase::Closed {
                return None;
            }
            self.table.changed().await.ok()?;
        }
    }
}

fn answer(state: Option<State>) -> pb::HealthCheckResponse {
    let status = match state {
        Some(State::Serving) => ServingStatus::Serving,
        Some(State::NotServing) => ServingStatus::NotServing,
        None => ServingStatus::ServiceUnknown,
    };
    pb::HealthCheckResponse { status: status.into() }
}
