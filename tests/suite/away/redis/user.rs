//! Profiles come from Postgres meanwhile, right and in time.

use std::time::Duration;

use prost_types::FieldMask;
use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, GetUserRequest, GetUserResponse, UpdateUserRequest, User};
use tidings_status::Failure;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::faults::Fault;
use super::{Job, own_stack, through_all};
use crate::service::Service;

struct Profile {
    service: Service,
    users: UserServiceClient<Channel>,
    /// The version that was acknowledged last.
    version: i64,
}

impl Profile {
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
        read.read_info.unwrap().source() == Source::Redis && read.user.unwrap().version == self.version
    }

    async fn account(&mut self, _: Fault) {
        assert_eq!(self.get(0).await.unwrap().user, self.get(self.version).await.unwrap().user);
    }
}

async fn start() -> Profile {
    let service = Service::on(own_stack().await, "user", &[], &[]).await;
    let mut profile = Profile { users: UserServiceClient::new(service.channel().await), service, version: 1 };
    let request = CreateUserRequest { user: Some(named(1)), ..CreateUserRequest::default() };
    profile.users.create_user(request).await.unwrap();
    profile
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_answers_everything_and_rightly_whatever_happens_to_redis() {
    let profile = start().await;
    through_all(profile.service.stack(), profile).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_soon_costs_a_read_of_user_nothing() {
    let mut profile = start().await;
    let stack = profile.service.stack();
    super::insist(&mut profile, "in the beginning", Duration::from_secs(5), |_| false).await;

    stack.redis().pause();
    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        profile.get(0).await.unwrap();
        took.push(begun.elapsed());
    }
    stack.redis().resume();

    // The time-out is 50 ms: without a breaker all of them would take that long.
    took.sort_unstable();
    assert!(took[50] < Duration::from_millis(40), "half of the reads took {:?}", took[50]);
    assert!(profile.service.metric("tidings_redis_breaker_opens_total").await > 0.0);
}
