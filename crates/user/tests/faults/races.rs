//! Readers and writers that are held at the worst moment, and a Redis that forgets, or goes back, at the worst moment.

mod absent;
mod fills;
mod herds;
mod near;
mod reigns;
mod writes;

use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{Users, renaming, told};

/// A read of `ada` in the background; its answer is the version, if there is such a user.
fn reading(users: &Users) -> JoinHandle<Option<i64>> {
    let mut client = users.client();
    let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    tokio::spawn(async move {
        match told(client.get_user(request).await) {
            Ok(found) => Some(found.user.unwrap().version),
            Err(failure) => {
                assert_eq!(failure.code, Code::NotFound, "{failure}");
                None
            }
        }
    })
}

/// A change of `ada` in the background; its answer is the version.
fn writing(users: &Users, display_name: &str) -> JoinHandle<i64> {
    let mut client = users.client();
    let request = renaming("ada", display_name);
    tokio::spawn(async move { told(client.update_user(request).await).unwrap().user.unwrap().version })
}
