//! The `grpc.health.v1` service over the table of entries.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::pb::health_check_response::ServingStatus;
use super::pb::health_server::HealthServer;
use super::{Health, HealthState, HealthTable, ServerPhase, pb};

/// Maximum number of entries in a List response. The contract allows RESOURCE_EXHAUSTED beyond it;
/// grpc-go has the same limit.
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
            Some(state) => Ok(Response::new(response(Some(state)))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let table = self.0.borrow();
        if table.entries.len() > MAX_LISTED {
            return Err(Status::resource_exhausted(format!("more than {MAX_LISTED} health entries")));
        }
        let statuses = table.entries.keys().map(|entry| (entry.clone(), response(table.state(entry)))).collect();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<pb::HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = HealthWatcher { table: self.0.subscribe(), entry: request.into_inner().service, last_sent: None };
        Ok(Response::new(stream::unfold(watcher, HealthWatcher::next).map(Ok).boxed()))
    }
}

/// A Watch call.
struct HealthWatcher {
    table: watch::Receiver<HealthTable>,
    entry: String,
    last_sent: Option<pb::HealthCheckResponse>,
}

impl HealthWatcher {
    /// Waits for a state that differs from the last one sent; `None` ends the call.
    async fn next(mut self) -> Option<(pb::HealthCheckResponse, Self)> {
        loop {
            let (now, phase) = {
                let table = self.table.borrow_and_update();
                (response(table.state(&self.entry)), table.phase)
            };
            if self.last_sent.replace(now) != Some(now) {
                return Some((now, self));
            }
            if phase == ServerPhase::Closed {
                return None;
            }
            self.table.changed().await.ok()?;
        }
    }
}

fn response(state: Option<HealthState>) -> pb::HealthCheckResponse {
    let status = match state {
        Some(HealthState::Serving) => ServingStatus::Serving,
        Some(HealthState::NotServing) => ServingStatus::NotServing,
        None => ServingStatus::ServiceUnknown,
    };
    pb::HealthCheckResponse { status: status.into() }
}
