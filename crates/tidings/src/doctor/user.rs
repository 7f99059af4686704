//! Checks with a trial user, which is created, read through every cache of every instance, changed
//! and deleted.

use std::time::Duration;

use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    Consistency, CreateUserRequest, DeleteUserRequest, GetUserRequest, GetUserResponse, UpdateUserRequest, User,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use uuid::Uuid;

use super::findings::{self, DoctorFindings};
use super::instance::CheckedInstance;
use crate::display;

/// Longest time until a cache serves a read or a change is visible: many times the usual time.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);
/// The pause between two reads.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The trial user.
struct TrialUser<'a> {
    id: String,
    /// The instances of the user service; writes go to the first.
    instances: &'a [CheckedInstance],
    findings: &'a mut DoctorFindings,
}

/// Creates, reads, changes and deletes a user, and adds the findings.
pub(super) async fn check(instances: &[CheckedInstance], findings: &mut DoctorFindings) {
    let id = format!("doctor-{}", Uuid::now_v7());
    let mut trial = TrialUser { id, instances, findings };
    if trial.create().await {
        trial.read_everywhere(1, "read your write").await;
        trial.strong_reads().await;
        trial.cached_reads().await;
        let version = if trial.update().await { 2 } else { 1 };
        if version == 2 {
            trial.read_everywhere(version, "read your update").await;
            trial.visible_everywhere(version).await;
        }
        trial.delete(version).await;
    }
}

/// The kind of a read.
#[derive(Clone, Copy)]
enum ReadKind {
    Plain,
    AtLeast(i64),
    Strong,
}

impl TrialUser<'_> {
    fn writer(&self) -> &CheckedInstance {
        &self.instances[0]
    }

    async fn read(&self, instance: &CheckedInstance, kind: ReadKind) -> Result<GetUserResponse, Status> {
        let (min_version, consistency) = match kind {
            ReadKind::Plain => (0, Consistency::Cached),
            ReadKind::AtLeast(version) => (version, Consistency::Cached),
            ReadKind::Strong => (0, Consistency::Strong),
        };
        let request = GetUserRequest { id: self.id.clone(), min_version, consistency: consistency.into() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        Ok(instance.call(request, send).await?.0.into_inner())
    }

    /// Adds the finding of a write; returns true if it succeeded.
    fn record_write<T>(&mut self, check: &'static str, outcome: Result<(T, Duration), Status>) -> bool {
        let title = self.writer().title();
        match outcome {
            Ok((_, took)) => {
                self.findings.ok(&title, check, format!("{} in {}", self.id, findings::render_duration(took)));
                return true;
            }
            Err(status) => {
                let found = self.writer().describe(&status);
                let advice = match status.code() {
                    Code::PermissionDenied => "give a token with the scope user:write, or use --read-only",
                    _ => "see its health above, and its log",
                };
                self.findings.fail(&title, check, found, advice);
            }
        }
        false
    }

    async fn create(&mut self) -> bool {
        let display_name = "created by tidings doctor".to_owned();
        let user = User { id: self.id.clone(), display_name, ..User::default() };
        let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
        let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
        let outcome = self.writer().call(request, send).await;
        self.record_write("create", outcome)
    }

    async fn update(&mut self) -> bool {
        let user = User { id: self.id.clone(), bio: "changed once".to_owned(), ..User::default() };
        let mask = prost_types::FieldMask { paths: vec!["bio".to_owned()] };
        let request = UpdateUserRequest { user: Some(user), update_mask: Some(mask), expected_version: 1 };
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let outcome = self.writer().call(request, send).await;
        self.record_write("update", outcome)
    }

    async fn delete(&mut self, expected_version: i64) {
        let request = DeleteUserRequest { id: self.id.clone(), expected_version };
        let send = async |channel, request| UserServiceClient::new(channel).delete_user(request).await;
        let outcome = self.writer().call(request, send).await;
        if !self.record_write("delete", outcome) {
            return;
        }
        for instance in self.instances {
            let deleted = async || match self.read(instance, ReadKind::Plain).await {
                Err(status) if status.code() == Code::NotFound => Some(Ok(())),
                Err(status) => Some(Err(status)),
                Ok(_) => None,
            };
            let (outcome, took) = eventually(deleted).await;
            self.record_visibility(instance, "delete visible", outcome, took);
        }
    }

    /// Checks that a read with `min_version` returns that version at once, from every instance.
    async fn read_everywhere(&mut self, version: i64, check: &'static str) {
        for instance in self.instances {
            let title = instance.title();
            match self.read(instance, ReadKind::AtLeast(version)).await {
                Ok(response) if user_version(&response) == version => {
                    self.findings.ok(&title, check, format!("version {version}, from {}", source(&response)));
                }
                Ok(response) => {
                    let found = format!("min_version {version} returned version {}", user_version(&response));
                    self.findings.fail(&title, check, found, "a guarantee is violated: report it with its log");
                }
                Err(status) => {
                    let found = instance.describe(&status);
                    self.findings.fail(&title, check, found, "do all instances use the same postgres?");
                }
            }
        }
    }

    /// Checks that a strong read bypasses the caches.
    async fn strong_reads(&mut self) {
        for instance in self.instances {
            let (title, check) = (instance.title(), "strong read");
            match self.read(instance, ReadKind::Strong).await {
                Ok(response) if response.read_info.as_ref().is_some_and(|read| read.source() == Source::Postgres) => {
                    self.findings.ok(&title, check, "from postgres");
                }
                Ok(response) => {
                    let found = format!("from {}", source(&response));
                    self.findings.fail(&title, check, found, "a guarantee is violated: report it with its log");
                }
                Err(status) => self.findings.fail(&title, check, instance.describe(&status), "check postgres"),
            }
        }
    }

    /// Checks that both caches of each instance serve reads.
    async fn cached_reads(&mut self) {
        for instance in self.instances {
            let (mut redis, mut local_cache) = (false, false);
            let read_source = async || {
                let response = self.read(instance, ReadKind::Plain).await.ok()?;
                match response.read_info.unwrap_or_default().source() {
                    Source::Redis => Some(Source::Redis),
                    Source::LocalCache => Some(Source::LocalCache),
                    _ => None,
                }
            };
            let begin = Instant::now();
            while !local_cache && begin.elapsed() < VISIBLE_WITHIN {
                match read_source().await {
                    // The local cache is filled from Redis only.
                    Some(Source::LocalCache) => (redis, local_cache) = (true, true),
                    Some(_) => redis = true,
                    None => {}
                }
                sleep(POLL_INTERVAL).await;
            }
            let title = instance.title();
            if redis {
                self.findings.ok(&title, "redis cache", "serves reads");
            } else {
                let advice = "check redis: every read goes to postgres";
                self.findings.warn(&title, "redis cache", "served no read", advice);
            }
            if local_cache {
                self.findings.ok(&title, "local cache", "serves reads");
            } else {
                let advice =
                    "is --user-local-cache-bytes 0, or redis unavailable? every read goes to redis or postgres";
                self.findings.warn(&title, "local cache", "served no read", advice);
            }
        }
    }

    /// Checks that cached reads from every instance show a change.
    async fn visible_everywhere(&mut self, version: i64) {
        for instance in self.instances {
            let visible = async || match self.read(instance, ReadKind::Plain).await {
                Ok(response) if user_version(&response) >= version => Some(Ok(())),
                Ok(_) => None,
                Err(status) => Some(Err(status)),
            };
            let (outcome, took) = eventually(visible).await;
            self.record_visibility(instance, "update visible", outcome, took);
        }
    }

    fn record_visibility(
        &mut self,
        instance: &CheckedInstance,
        check: &'static str,
        outcome: Option<Result<(), Status>>,
        took: Duration,
    ) {
        let title = instance.title();
        match outcome {
            Some(Ok(())) => {
                self.findings.ok(&title, check, format!("to a cached read, after {}", findings::render_duration(took)));
            }
            Some(Err(status)) => {
                self.findings.fail(&title, check, instance.describe(&status), "see its health above, and its log");
            }
            None => {
                let found = format!("not within {}", display::millis(VISIBLE_WITHIN));
                let advice = "do all instances use the same redis, and does the relay work (tidings_user_outbox_oldest_seconds)?";
                self.findings.fail(&title, check, found, advice);
            }
        }
    }
}

fn user_version(response: &GetUserResponse) -> i64 {
    response.user.as_ref().map_or(0, |user| user.version)
}

fn source(response: &GetUserResponse) -> &'static str {
    match response.read_info.as_ref().map(tidings_proto::user::ReadInfo::source) {
        Some(Source::LocalCache) => "local_cache",
        Some(Source::Redis) => "redis",
        Some(Source::Postgres) => "postgres",
        _ => "an unknown source",
    }
}

/// Polls until `poll` returns a value, for at most [`VISIBLE_WITHIN`]; returns the value and the
/// time taken.
async fn eventually<T>(poll: impl AsyncFn() -> Option<T>) -> (Option<T>, Duration) {
    let begin = Instant::now();
    loop {
        let found = poll().await;
        if found.is_some() || begin.elapsed() > VISIBLE_WITHIN {
            return (found, begin.elapsed());
        }
        sleep(POLL_INTERVAL).await;
    }
}
