//! Postgres restored from an older copy, beside caches that have seen later versions.

use super::support::{SOON, TestEnv, UserInstance, eventually};

async fn display_name(users: &UserInstance) -> Option<String> {
    users.get("ada").await.ok().map(|found| found.user.display_name)
}

/// The services go on without a restart. The version that was lost is given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_empties_all_caches() {
    let env = TestEnv::own().await;
    let (here, there) = (env.serve_from_local_cache().await, env.serve_from_local_cache().await);
    let database = env.postgres_url.rsplit('/').next().unwrap();
    here.create("ada").await.unwrap();
    here.rename("ada", "Ada").await.unwrap();
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    env.stack().postgres().back_up_database(database, "copy").await.unwrap();
    eventually("a version is lost later", SOON, async || here.rename("ada", "lost").await.is_ok()).await;
    for users in [&here, &there] {
        eventually("the version is cached", SOON, async || display_name(users).await.as_deref() == Some("lost")).await;
    }

    env.stack().postgres().restore_database(database, "copy").await.unwrap();

    for users in [&here, &there] {
        let restored = async || display_name(users).await.as_deref() == Some("Ada");
        eventually("the restored version is served", SOON, restored).await;
    }
    eventually("an update succeeds", SOON, async || here.rename("ada", "Ada King").await.is_ok()).await;
    for users in [&here, &there] {
        let updated = async || display_name(users).await.as_deref() == Some("Ada King");
        eventually("the update is served", SOON, updated).await;
    }
}
