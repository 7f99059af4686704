//! User under Redis faults: profiles are read from Postgres, correctly and in time; a watch
//! delivers every change, with delay.

use std::time::Duration;

use prost_types::FieldMask;
use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tidings_proto::user::{
    CreateUserRequest, GetUserRequest, GetUserResponse, UpdateUserRequest, User, WatchUsersRequest, WatchUsersResponse,
};
use tidings_status::Failure;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use super::fault::RedisFault;
use super::{DETECTION, FaultWorkload, PAUSE, RECOVERY, SLACK, own_stack, run_all_faults, run_until_healthy};
use crate::service::TestService;

struct ProfileWorkload {
    service: TestService,
    users: UserServiceClient<Channel>,
    /// Version of the last acknowledged update.
    version: i64,
    /// A watch that stays open under all faults.
    watch: Streaming<WatchUsersResponse>,
    /// Last version that the watch has delivered.
    watched_version: i64,
}

/// Longest time until a watch delivers a change under any fault.
const WATCH_DELAY: Duration = Duration::from_secs(6);

impl ProfileWorkload {
    /// Waits until the watch has delivered the last version; versions only grow.
    async fn wait_for_watch(&mut self) {
        while self.watched_version < self.version {
            let response = timeout(WATCH_DELAY + SLACK, self.watch.message()).await.unwrap().unwrap();
            if let Some(Frame::Versions(update)) = response.unwrap().frame {
                assert!(update.versions[0].version > self.watched_version, "{update:?} after {}", self.watched_version);
                self.watched_version = update.versions[0].version;
            }
        }
        assert_eq!(self.watched_version, self.version);
    }

    async fn get(&mut self, min_version: i64) -> Result<GetUserResponse, Failure> {
        let request = GetUserRequest { id: "ada".to_owned(), min_version, ..GetUserRequest::default() };
        Ok(self.users.get_user(request).await.map_err(|status| Failure::from(&status))?.into_inner())
    }
}

/// Returns the user with the display name of a version.
fn user_at(version: i64) -> User {
    User { id: "ada".to_owned(), display_name: format!("Ada {version}"), ..User::default() }
}

impl FaultWorkload for ProfileWorkload {
    const ENTRY: &str = "tidings.user.v1.UserService";
    const WITHOUT_REDIS: bool = true;

    fn service(&self) -> &TestService {
        &self.service
    }

    /// Updates the user, reads it with `min_version` and once without.
    async fn run_once(&mut self) -> Result<(), Failure> {
        let update = UpdateUserRequest {
            user: Some(user_at(self.version + 1)),
            update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
            expected_version: self.version,
        };
        let updated = self.users.update_user(update).await.map_err(|status| Failure::from(&status))?.into_inner();
        self.version += 1;
        assert_eq!(updated.user.unwrap().version, self.version);

        let user = self.get(self.version).await?.user.unwrap();
        assert_eq!((user.version, user.display_name), (self.version, user_at(self.version).display_name));
        let eventual = self.get(0).await?.user.unwrap();
        assert_eq!(eventual.display_name, user_at(eventual.version).display_name);
        assert!(eventual.version <= self.version, "{eventual:?}");
        Ok(())
    }

    fn is_expected_refusal(_: RedisFault, _: bool, _: &Failure) -> bool {
        false
    }

    async fn is_healthy(&mut self) -> bool {
        let read = self.get(0).await.unwrap();
        read.read_info.unwrap().source() != Source::Postgres && read.user.unwrap().version == self.version
    }

    async fn assert_nothing_lost(&mut self, _: RedisFault) {
        assert_eq!(self.get(0).await.unwrap().user, self.get(self.version).await.unwrap().user);
        self.wait_for_watch().await;
    }
}

async fn start() -> ProfileWorkload {
    start_with(&[]).await
}

async fn start_with(flags: &[&str]) -> ProfileWorkload {
    let service = TestService::start_on(own_stack().await, "user", flags, &[]).await;
    let mut users = UserServiceClient::new(service.channel().await);
    let request = CreateUserRequest { user: Some(user_at(1)), ..CreateUserRequest::default() };
    users.create_user(request).await.unwrap();
    let request = WatchUsersRequest { ids: vec!["ada".to_owned()] };
    let watch = users.watch_users(request).await.unwrap().into_inner();
    ProfileWorkload { service, users, version: 1, watch, watched_version: 0 }
}

/// No Redis fault makes a call fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_answers_correctly_under_redis_faults() {
    let workload = start().await;
    run_all_faults(workload.service.stack(), workload).await;
}

/// Only the first reads wait for the Redis timeout; the breaker sheds the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_spares_reads_the_timeout_of_a_stopped_redis() {
    // With a local cache, no read would use Redis.
    let mut workload = start_with(&["--user-local-cache-bytes=0"]).await;
    let stack = workload.service.stack();
    run_until_healthy(&mut workload, "before the fault", RECOVERY + SLACK, |_| false).await;
    wait_for_readyz(&workload, &["redis SERVING (breaker closed)"]).await;

    stack.redis().pause();
    for _ in 0..100 {
        workload.get(0).await.unwrap();
    }
    // Five calls open the breaker; then it admits a probe from time to time.
    let shed = workload.service.metric(r#"tidings_redis_errors_total{kind="shed"}"#).await;
    assert!(shed >= 80.0, "the breaker shed {shed} of 100 reads");
    // The breaker is half-open until the next call, which it admits as a probe.
    wait_for_readyz(&workload, &["redis NOT_SERVING (breaker open)", "redis NOT_SERVING (breaker half-open)"]).await;
    assert!(workload.service.metric("tidings_redis_breaker_open").await > 0.0);
    stack.redis().resume();

    run_until_healthy(&mut workload, "after the fault", RECOVERY + SLACK, |_| false).await;
    wait_for_readyz(&workload, &["redis SERVING (breaker closed)"]).await;
}

async fn wait_for_readyz(workload: &ProfileWorkload, lines: &[&str]) {
    let started = Instant::now();
    loop {
        let response = workload.service.http_response("/readyz").await;
        if response.lines().any(|line| lines.contains(&line)) {
            return;
        }
        assert!(started.elapsed() < DETECTION + SLACK, "{lines:?}: {response}");
        sleep(PAUSE).await;
    }
}
