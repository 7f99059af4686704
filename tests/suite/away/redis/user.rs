//! Profiles come from Postgres meanwhile, right and in time; who watches is told every change, if late.

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

use super::faults::Fault;
use super::{BACK, BUSY, Job, PAUSE, TOLD, insist, own_stack, through_all};
use crate::service::Service;

struct Profile {
    service: Service,
    users: UserServiceClient<Channel>,
    /// The version that was acknowledged last.
    version: i64,
    /// Who watches all the time.
    watch: Streaming<WatchUsersResponse>,
    /// The version that was told last.
    told: i64,
}

/// A change is told within 6 s, whatever happens to Redis.
const FOUND: Duration = Duration::from_secs(6);

impl Profile {
    /// Waits until the last version was told; none is told twice, or after a later one.
    async fn until_told(&mut self) {
        while self.told < self.version {
            let response = timeout(FOUND + BUSY, self.watch.message()).await.unwrap().unwrap();
            if let Some(Frame::Versions(news)) = response.unwrap().frame {
                assert!(news.versions[0].version > self.told, "{news:?} after {}", self.told);
                self.told = news.versions[0].version;
            }
        }
        assert_eq!(self.told, self.version);
    }

    async fn get(&mut self, min_version: i64) -> Result<GetUserResponse, Failure> {
        let request = GetUserRequest { id: "ada".to_owned(), min_version, ..GetUserRequest::default() };
        Ok(self.users.get_user(request).await.map_err(|status| Failure::from(&status))?.into_inner())
    }
}

/// The user as each version says it.
fn named(version: i64) -> User {
    User { id: "ada".to_owned(), display_name: format!("Ada {version}"), ..User::default() }
}

impl Job for Profile {
    const ENTRY: &str = "tidings.user.v1.UserService";
    const WITHOUT_REDIS: bool = true;

    fn service(&self) -> &Service {
        &self.service
    }

    /// An update, which whoever asks for it sees at once, and a plain read.
    async fn work(&mut self) -> Result<(), Failure> {
        let update = UpdateUserRequest {
            user: Some(named(self.version + 1)),
            update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
            expected_version: self.version,
        };
        let updated = self.users.update_user(update).await.map_err(|status| Failure::from(&status))?.into_inner();
        self.version += 1;
        assert_eq!(updated.user.unwrap().version, self.version);

        let user = self.get(self.version).await?.user.unwrap();
        assert_eq!((user.version, user.display_name), (self.version, named(self.version).display_name));
        let plain = self.get(0).await?.user.unwrap();
        assert_eq!(plain.display_name, named(plain.version).display_name);
        assert!(plain.version <= self.version, "{plain:?}");
        Ok(())
    }

    fn may_refuse(_: Fault, _: bool, _: &Failure) -> bool {
        false
    }

    async fn is_well(&mut self) -> bool {
        let read = self.get(0).await.unwrap();
        read.read_info.unwrap().source() != Source::Postgres && read.user.unwrap().version == self.version
    }

    async fn account(&mut self, _: Fault) {
        assert_eq!(self.get(0).await.unwrap().user, self.get(self.version).await.unwrap().user);
        self.until_told().await;
    }
}

async fn start() -> Profile {
    start_with(&[]).await
}

async fn start_with(flags: &[&str]) -> Profile {
    let service = Service::on(own_stack().await, "user", flags, &[]).await;
    let mut users = UserServiceClient::new(service.channel().await);
    let request = CreateUserRequest { user: Some(named(1)), ..CreateUserRequest::default() };
    users.create_user(request).await.unwrap();
    let request = WatchUsersRequest { ids: vec!["ada".to_owned()] };
    let watch = users.watch_users(request).await.unwrap().into_inner();
    Profile { service, users, version: 1, watch, told: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_answers_everything_and_rightly_whatever_happens_to_redis() {
    let profile = start().await;
    through_all(profile.service.stack(), profile).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_costs_some_reads_of_user_their_time_out_and_soon_none() {
    // With a memory, no read would ask Redis.
    let mut profile = start_with(&["--user-near-bytes=0"]).await;
    let stack = profile.service.stack();
    insist(&mut profile, "in the beginning", BACK + BUSY, |_| false).await;
    until_readyz_says(&profile, &["redis SERVING (breaker closed)"]).await;

    stack.redis().pause();
    for _ in 0..100 {
        profile.get(0).await.unwrap();
    }
    // Five until it opens, and then one now and then.
    let spared = profile.service.metric(r#"tidings_redis_errors_total{kind="shed"}"#).await;
    assert!(spared >= 80.0, "{spared} of 100 reads were spared the wait");
    // Half-open is what it is while it waits for a call to let through.
    until_readyz_says(&profile, &["redis NOT_SERVING (breaker open)", "redis NOT_SERVING (breaker half-open)"]).await;
    assert!(profile.service.metric("tidings_redis_breaker_open").await > 0.0);
    stack.redis().resume();

    insist(&mut profile, "in the end", BACK + BUSY, |_| false).await;
    until_readyz_says(&profile, &["redis SERVING (breaker closed)"]).await;
}

async fn until_readyz_says(profile: &Profile, lines: &[&str]) {
    let begun = Instant::now();
    loop {
        let answer = profile.service.http("/readyz").await;
        if answer.lines().any(|line| lines.contains(&line)) {
            return;
        }
        assert!(begun.elapsed() < TOLD + BUSY, "{lines:?}: {answer}");
        sleep(PAUSE).await;
    }
}
