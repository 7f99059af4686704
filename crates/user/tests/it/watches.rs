//! What a stream of versions tells, and what it refuses.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tonic::Code;
use tonic::transport::Endpoint;

use super::support::{SOON, Users, World, eventually};
use super::watcher::{Watcher, watch};

/// Compared so often that a test need not wait for it.
const OFTEN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn the_versions_as_they_are_are_told_first_then_each_change_made_at_any_instance() {
    let (here, there) = Users::start_two().await;
    for id in ["ada", "bob"] {
        here.create(id).await.unwrap();
    }
    here.rename("bob", "Bob").await.unwrap();

    let mut watcher = watch(&here, &["ada", "bob", "nobody"]).await.unwrap();
    let first = watcher.frame().await;
    let told = |id: &str, version, absent| pb::UserVersion { id: id.to_owned(), version, absent };
    let versions = vec![told("ada", 1, false), told("bob", 2, false), told("nobody", 0, true)];
    assert_eq!(first, Frame::Versions(pb::UserVersions { versions }));
    assert_eq!(watcher.frame().await, Frame::CaughtUp(pb::CaughtUp {}));

    there.rename("ada", "Ada").await.unwrap();
    watcher.until("ada", 2, false).await;
    here.rename("bob", "Robert").await.unwrap();
    watcher.until("bob", 3, false).await;
}

#[tokio::test]
async fn a_user_that_is_not_there_yet_is_told_as_absent_then_as_created_then_as_deleted() {
    let (here, there) = Users::start_two().await;
    let mut watcher = Watcher::start(&here, &["ada"]).await;
    assert_eq!(watcher.known["ada"], (0, true));

    there.create("ada").await.unwrap();
    watcher.until("ada", 1, false).await;
    there.delete("ada").await.unwrap();
    watcher.until("ada", 2, true).await;

    let again = Watcher::start(&there, &["ada"]).await;
    assert_eq!(again.known["ada"], (2, true));
}

#[tokio::test]
async fn an_id_that_stands_twice_is_told_once_and_a_thousand_may_be_watched() {
    let users = Users::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("{number:064}")).collect();
    users.create(&ids[999]).await.unwrap();

    let mut watcher = Watcher::start(&users, &ids).await;
    assert_eq!((watcher.known.len(), watcher.frames), (1000, 1));
    assert_eq!(watcher.known[&ids[999]], (1, false));
    users.rename(&ids[999], "Ada").await.unwrap();
    watcher.until(&ids[999], 2, false).await;

    let mut watcher = watch(&users, &["ada", "bob", "ada"]).await.unwrap();
    let Frame::Versions(first) = watcher.frame().await else { panic!("versions come first") };
    assert_eq!(first.versions.len(), 2);
}

#[tokio::test]
async fn a_malformed_list_of_ids_is_refused_and_each_that_is_wrong_is_named() {
    let users = Users::start().await;
    let fields = async |ids: &[String]| {
        let failure = watch(&users, ids).await.err().unwrap();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
        failure.violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>()
    };

    assert_eq!(fields(&[]).await, ["ids"]);
    assert_eq!(fields(&vec!["ada".to_owned(); 1001]).await, ["ids"]);
    let ids = ["ada", "", "no spaces", "bob", &"x".repeat(65)].map(ToOwned::to_owned);
    assert_eq!(fields(&ids).await, ["ids[1-2,4]"]);
}

#[tokio::test]
async fn an_instance_that_watches_as_many_ids_as_it_may_refuses_more_until_a_stream_ends() {
    let world = World::shared().await;
    let users = world.serve_with(|config| config.watches.user_watched_ids = 5).await;
    let first = Watcher::start(&users, &["a", "b", "c"]).await;

    let failure = watch(&users, &["a", "b", "d"]).await.err().unwrap();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_WATCHED"));
    assert!(failure.retry_after.is_some());
    let _second = Watcher::start(&users, &["a", "a", "b"]).await;

    drop(first);
    eventually("there is room again", SOON, async || watch(&users, &["a", "b", "d"]).await.is_ok()).await;
}

#[tokio::test]
async fn a_stream_ends_with_goodbye_when_its_instance_shuts_down() {
    let world = World::shared().await;
    let (here, there) = (world.serve().await, world.serve().await);
    let watchers = [Watcher::start(&here, &["ada"]).await, Watcher::start(&here, &["ada", "bob"]).await];

    let stopping = tokio::spawn(here.stop());
    for watcher in watchers {
        let Some(Frame::Goodbye(goodbye)) = watcher.last().await else { panic!("a goodbye is the last frame") };
        assert!(goodbye.retry_after.unwrap().seconds >= 1);
    }
    stopping.await.unwrap();

    there.create("ada").await.unwrap();
    assert_eq!(Watcher::start(&there, &["ada"]).await.known["ada"], (1, false), "who calls again has missed nothing");
}

#[tokio::test]
async fn a_quiet_stream_gets_heartbeats_and_they_say_that_changes_may_come_late() {
    let world = World::own().await;
    let users = world.serve_with(|config| config.watches.user_heartbeat = OFTEN.into()).await;
    let mut watcher = Watcher::start(&users, &["ada"]).await;
    let mut degraded = async |expected: bool| {
        while !matches!(watcher.frame().await, Frame::Heartbeat(pb::Heartbeat { degraded }) if degraded == expected) {}
    };

    degraded(false).await;
    world.stack().redis().kill().await;
    degraded(true).await;
    world.stack().redis().start().await.unwrap();
    degraded(false).await;
    world.stack().postgres().kill().await;
    degraded(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_begins_while_postgres_is_away_and_one_that_has_begun_stays_open() {
    let world = World::own().await;
    let users = world
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.watches.user_compare_interval = OFTEN.into();
        })
        .await;
    users.create("ada").await.unwrap();
    let mut watcher = Watcher::start(&users, &["ada"]).await;

    world.stack().postgres().kill().await;
    eventually("no stream begins", SOON, async || {
        watch(&users, &["ada"]).await.is_err_and(|failure| {
            assert_eq!(failure.code, Code::Unavailable, "{failure}");
            failure.reason == "STORE_AWAY" && failure.retry_after.is_some()
        })
    })
    .await;
    world.stack().postgres().start().await.unwrap();
    eventually("it is written again", SOON, async || users.rename("ada", "Ada").await.is_ok()).await;

    let version = users.get_strong("ada").await.unwrap().version;
    watcher.until("ada", version, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_no_more_and_is_told_the_newest_when_it_does() {
    /// Enough frames of a thousand long ids for any buffer between here and there, if each change made one.
    const ROUNDS: i64 = 300;
    let world = World::shared().await;
    let users =
        world.serve_with(|config| config.watches.user_compare_interval = Duration::from_millis(10).into()).await;
    let ids: Vec<String> = (0..1000).map(|number| format!("{number:064}")).collect();
    world
        .execute(
            "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
             SELECT lpad(number::text, 64, '0'), '', '', '', '', '{}', 1 FROM generate_series(0, 999) AS number",
        )
        .await;
    // A client that takes at most 64 KiB ahead of what is read, less than one frame.
    let endpoint = Endpoint::from_shared(format!("http://{}", users.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut client = UserServiceClient::new(endpoint.connect().await.unwrap());
    let stream = client.watch_users(pb::WatchUsersRequest { ids: ids.clone() }).await.unwrap().into_inner();
    let mut eager = Watcher::start(&users, &ids).await;

    for round in 2..=ROUNDS {
        world.execute("UPDATE user_account SET version = version + 1").await;
        eager.until(&ids[0], round, false).await;
    }
    let mut watcher = Watcher::of(stream);
    watcher.until(&ids[999], ROUNDS, false).await;

    assert_eq!(watcher.known, eager.known);
    assert!(watcher.known.values().all(|known| *known == (ROUNDS, false)));
    assert!(watcher.frames < 20, "{} frames of {ROUNDS} changes", watcher.frames);
    assert!(eager.frames > 100, "{} frames of {ROUNDS} changes", eager.frames);
}
