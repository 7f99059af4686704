//! Readers and writers that are held at the worst moment, and a Redis that forgets, or goes back, at the worst moment.

mod absent;
mod fills;
mod herds;
mod near;
mod reigns;
mod writes;

use tokio::task::JoinHandle;

use crate::support::{Users, renaming, told};

/// A read of `ada` in the background; its answer is the version.
fn reading(users: &Users) -> JoinHandle<i64> {
    let mut client = users.client();
    let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    tokio::spawn(async move { told(client.get_user(request).await).unwrap().user.unwrap().version })
}

/// A change of `ada` in the background; its answer is the version.
fn writing(users: &Users, display_name: &str) -> JoinHandle<i64> {
    let mut client = users.client();
    let request = renaming("ada", display_name);
    tokio::spawn(async move { told(client.update_user(request).await).unwrap().user.unwrap().version })
}
