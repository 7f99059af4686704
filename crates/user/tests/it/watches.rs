//! Frames and errors of WatchUsers.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::goodbye::Reason;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tonic::Code;
use tonic::transport::Endpoint;

use super::support::{SOON, TestEnv, UserInstance, eventually};
use super::watcher::{VersionWatcher, watch};

/// An interval that a test hardly waits for.
const OFTEN: Duration = Duration::from_millis(50);

/// Changes made on any instance are sent.
#[tokio::test]
async fn a_stream_sends_current_versions_then_changes() {
    let (here, there) = UserInstance::start_two().await;
    for id in ["ada", "bob"] {
        here.create(id).await.unwrap();
    }
    here.rename("bob", "Bob").await.unwrap();

    let mut watcher = watch(&here, &["ada", "bob", "nobody"]).await.unwrap();
    let Frame::Versions(mut first) = watcher.frame().await else { panic!("no versions") };
    // The notification of the rename may arrive while the current versions are read.
    first.versions.sort_by(|one, other| one.id.cmp(&other.id));
    let version = |id: &str, version, absent| pb::UserVersion { id: id.to_owned(), version, absent };
    assert_eq!(first.versions, [version("ada", 1, false), version("bob", 2, false), version("nobody", 0, true)]);
    assert_eq!(watcher.frame().await, Frame::CaughtUp(pb::CaughtUp {}));

    there.rename("ada", "Ada").await.unwrap();
    watcher.until("ada", 2, false).await;
    here.rename("bob", "Robert").await.unwrap();
    watcher.until("bob", 3, false).await;
}

#[tokio::test]
async fn a_stream_shows_absence_creation_and_deletion() {
    let (here, there) = UserInstance::start_two().await;
    let mut watcher = VersionWatcher::start(&here, &["ada"]).await;
    assert_eq!(watcher.known["ada"], (0, true));

    there.create("ada").await.unwrap();
    watcher.until("ada", 1, false).await;
    there.delete("ada").await.unwrap();
    watcher.until("ada", 2, true).await;

    let again = VersionWatcher::start(&there, &["ada"]).await;
    assert_eq!(again.known["ada"], (2, true));
}

#[tokio::test]
async fn a_repeated_id_is_sent_once_and_1000_ids_are_allowed() {
    let users = UserInstance::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("{number:064}")).collect();
    users.create(&ids[999]).await.unwrap();

    let mut watcher = VersionWatcher::start(&users, &ids).await;
    assert_eq!((watcher.known.len(), watcher.frames), (1000, 1));
    assert_eq!(watcher.known[&ids[999]], (1, false));
    users.rename(&ids[999], "Ada").await.unwrap();
    watcher.until(&ids[999], 2, false).await;

    let mut watcher = watch(&users, &["ada", "bob", "ada"]).await.unwrap();
    let Frame::Versions(first) = watcher.frame().await else { panic!("the first frame has no versions") };
    assert_eq!(first.versions.len(), 2);
}

#[tokio::test]
async fn malformed_ids_are_refused_and_named() {
    let users = UserInstance::start().await;
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
async fn a_full_instance_refuses_streams_until_another_ends() {
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.watches.user_watched_ids = 5).await;
    let first = VersionWatcher::start(&users, &["a", "b", "c"]).await;

    let failure = watch(&users, &["a", "b", "d"]).await.err().unwrap();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_WATCHED"));
    assert!(failure.retry_after.is_some());
    let _second = VersionWatcher::start(&users, &["a", "a", "b"]).await;

    drop(first);
    eventually("there is room again", SOON, async || watch(&users, &["a", "b", "d"]).await.is_ok()).await;
}

#[tokio::test]
async fn a_stream_ends_with_goodbye_when_its_instance_shuts_down() {
    let env = TestEnv::shared().await;
    let (here, there) = (env.serve().await, env.serve().await);
    let watchers = [VersionWatcher::start(&here, &["ada"]).await, VersionWatcher::start(&here, &["ada", "bob"]).await];

    let stopping = tokio::spawn(here.stop());
    for watcher in watchers {
        let Some(Frame::Goodbye(goodbye)) = watcher.last().await else { panic!("the last frame is no Goodbye") };
        assert!(goodbye.retry_after.unwrap().seconds >= 1);
        assert_eq!(goodbye.reason(), Reason::Shutdown);
    }
    stopping.await.unwrap();

    there.create("ada").await.unwrap();
    assert_eq!(
        VersionWatcher::start(&there, &["ada"]).await.known["ada"],
        (1, false),
        "a later call gets the missed version"
    );
}

#[tokio::test]
async fn heartbeats_of_a_quiet_stream_say_if_changes_may_be_late() {
    let env = TestEnv::own().await;
    let users = env.serve_with(|config| config.watches.user_heartbeat = OFTEN.into()).await;
    let mut watcher = VersionWatcher::start(&users, &["ada"]).await;
    let mut degraded = async |expected: bool| {
        while !matches!(watcher.frame().await, Frame::Heartbeat(pb::Heartbeat { degraded }) if degraded == expected) {}
    };

    degraded(false).await;
    env.stack().redis().kill().await;
    degraded(true).await;
    env.stack().redis().start().await.unwrap();
    degraded(false).await;
    env.stack().postgres().kill().await;
    degraded(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_streams_stay_open_and_none_begins() {
    let env = TestEnv::own().await;
    let users = env
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.watches.user_compare_interval = OFTEN.into();
        })
        .await;
    users.create("ada").await.unwrap();
    let mut watcher = VersionWatcher::start(&users, &["ada"]).await;

    env.stack().postgres().kill().await;
    eventually("a new stream is refused", SOON, async || {
        watch(&users, &["ada"]).await.is_err_and(|failure| {
            assert_eq!(failure.code, Code::Unavailable, "{failure}");
            failure.reason == "STORE_AWAY" && failure.retry_after.is_some()
        })
    })
    .await;
    env.stack().postgres().start().await.unwrap();
    eventually("a write succeeds again", SOON, async || users.rename("ada", "Ada").await.is_ok()).await;

    let version = users.get_strong("ada").await.unwrap().version;
    watcher.until("ada", version, false).await;
}

/// The instance queues no frames for it meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_gets_the_newest_versions() {
    /// Enough changes to overflow every buffer, if each made a frame of a thousand long ids.
    const ROUNDS: i64 = 300;
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.watches.user_compare_interval = Duration::from_millis(10).into()).await;
    let ids: Vec<String> = (0..1000).map(|number| format!("{number:064}")).collect();
    env.execute(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
             SELECT lpad(number::text, 64, '0'), '', '', '', '', '{}', 1 FROM generate_series(0, 999) AS number",
    )
    .await;
    // The client buffers at most 64 KiB, less than one frame.
    let endpoint = Endpoint::from_shared(format!("http://{}", users.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut client = UserServiceClient::new(endpoint.connect().await.unwrap());
    let stream = client.watch_users(pb::WatchUsersRequest { ids: ids.clone() }).await.unwrap().into_inner();
    let mut attentive = VersionWatcher::start(&users, &ids).await;

    for round in 2..=ROUNDS {
        env.execute("UPDATE user_account SET version = version + 1").await;
        attentive.until(&ids[0], round, false).await;
    }
    let mut watcher = VersionWatcher::of(stream);
    watcher.until(&ids[999], ROUNDS, false).await;

    assert_eq!(watcher.known, attentive.known);
    assert!(watcher.known.values().all(|known| *known == (ROUNDS, false)));
    assert!(watcher.frames < 20, "{} frames for {ROUNDS} changes", watcher.frames);
    assert!(attentive.frames > 100, "{} frames for {ROUNDS} changes", attentive.frames);
}
