//! Races of readers and writers held at the worst moment, and of evictions, flushes and restores of
//! Redis.

mod absent;
mod fills;
mod herds;
mod incarnations;
mod local_cache;
mod writes;

use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{UserInstance, into_result, renaming};

/// Reads `ada` in the background; the task returns the version, or `None` if the user is absent.
fn reading(users: &UserInstance) -> JoinHandle<Option<i64>> {
    let mut client = users.client();
    let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    tokio::spawn(async move {
        match into_result(client.get_user(request).await) {
            Ok(found) => Some(found.user.unwrap().version),
            Err(failure) => {
                assert_eq!(failure.code, Code::NotFound, "{failure}");
                None
            }
        }
    })
}

/// Updates `ada` in the background; the task returns the new version.
fn writing(users: &UserInstance, display_name: &str) -> JoinHandle<i64> {
    let mut client = users.client();
    let request = renaming("ada", display_name);
    tokio::spawn(async move { into_result(client.update_user(request).await).unwrap().user.unwrap().version })
}
